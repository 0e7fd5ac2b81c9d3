"""`loop.start_tls` and `StreamWriter.start_tls` for the core's transports.

Rules of this file: plaintext received before the handshake is never read after it (CVE-2011-0411).
Normally a native TLS connection takes over the descriptor. What the client sent too early is then
still in the kernel; the handshake reads it as TLS and fails. If a StreamReader has already received
some of it, the standard library's SSLProtocol runs over the connection and gets those bytes as its
first input, with the same result. SSLProtocol is also used for the client's side and for TLS inside
TLS, which are rare on a server.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from typing import Any, cast

from fastlisten._connection import Connection
from fastlisten.loop.engines import engine_for
from fastlisten.loop.tls_arguments import check_timeouts, shared_settings

__all__ = ["is_ours", "start_tls"]


def is_ours(transport: Any) -> bool:
    """Tell whether `start_tls` can upgrade a transport: a `Connection`, or TLS over one."""
    while isinstance(transport, sslproto._SSLProtocolTransport):
        protocol = cast(Any, transport)._ssl_protocol
        transport = None if protocol is None else protocol._transport
    return isinstance(transport, Connection)


async def start_tls(
    transport: Any,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Any:
    """Upgrade a connection to TLS, on any running loop.

    The parameters are those of `loop.start_tls`. Data that is still in the transport's write buffer
    is sent unencrypted first.

    Args:
        transport: a connection of the core, or TLS over one; not usable afterwards.
        protocol: the protocol of the new transport; `connection_made` is not called again.
        context: the TLS context.
        server_side: this end is the server.
        server_hostname: on the client's side, the server name to verify.
        ssl_handshake_timeout: seconds, by default 60.
        ssl_shutdown_timeout: seconds to wait for the peer's close_notify, by default 30.

    Returns:
        The new transport.

    Raises:
        TypeError: `context` or `transport` is of the wrong type.
        ValueError: a timeout is not positive.
        ConnectionError: the connection is closing or was lost, or the handshake took too long.
        ssl.SSLError: the handshake failed.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {context!r}"
        )
    if not is_ours(transport):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    check_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
    if transport.is_closing():
        raise ConnectionAbortedError("Cannot start TLS: the connection is closing")
    held = _take_held(protocol)
    if server_side and not held and type(transport) is Connection:
        return await _hand_over(
            transport, protocol, context, ssl_handshake_timeout, ssl_shutdown_timeout
        )
    return await _run_protocol(
        transport,
        protocol,
        context,
        held,
        server_side=server_side,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )


def _reader_of(protocol: asyncio.BaseProtocol) -> Any:
    """Return the StreamReader that a protocol feeds, None if it is not a StreamReaderProtocol."""
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        return cast(Any, protocol)._stream_reader
    return None


def _take_held(protocol: asyncio.BaseProtocol) -> bytes:
    """Return and remove the unread data in a protocol's StreamReader."""
    reader = _reader_of(protocol)
    if reader is None or not reader._buffer:
        return b""
    held = bytes(reader._buffer)
    reader._buffer.clear()
    # A reader whose buffer was full has paused the transport, and would never resume it.
    reader._maybe_resume_transport()
    return held


async def _hand_over(
    transport: Any,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> Any:
    """Let a native TLS connection take the descriptor over."""
    engine = engine_for(asyncio.get_running_loop())
    settings = shared_settings(engine, context, handshake_timeout, shutdown_timeout)
    before = transport.get_protocol()
    transport.set_protocol(protocol)
    try:
        upgraded = transport.start_tls(settings)
    except BaseException:
        transport.set_protocol(before)
        raise
    try:
        new = await upgraded
    except BaseException:
        transport.abort()
        raise
    reader = _reader_of(protocol)
    if reader is not None:
        # For its flow control, which would otherwise still use the old transport.
        reader._transport = new
    return new


async def _run_protocol(
    transport: Any,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    held: bytes,
    *,
    server_side: bool,
    server_hostname: str | None,
    ssl_handshake_timeout: float | None,
    ssl_shutdown_timeout: float | None,
) -> Any:
    """Do what asyncio's own start_tls does, with `held` as the first encrypted input."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    make: Any = sslproto.SSLProtocol  # its type stub allows only whole seconds
    upper = make(
        loop,
        protocol,
        context,
        waiter,
        server_side,
        server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        call_connection_made=False,
    )
    if held:
        upper._incoming.write(held)
    # Receive nothing until connection_made has started the handshake.
    transport.pause_reading()
    transport.set_protocol(upper)
    made = loop.call_soon(upper.connection_made, transport)
    resumed = loop.call_soon(transport.resume_reading)
    try:
        await waiter
        if upper._app_transport is None:
            # Closed by this side during the handshake, which SSLProtocol reports as success.
            raise ConnectionAbortedError("Connection closed during the TLS handshake")
    except BaseException:
        transport.close()
        made.cancel()
        resumed.cancel()
        raise
    return upper._app_transport
