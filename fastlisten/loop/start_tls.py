"""`loop.start_tls` and `StreamWriter.start_tls` for the core's transports.

Rules of this file: no plaintext that was received before the handshake is ever read after it
(CVE-2011-0411). Where the protocol holds none, the descriptor is handed to a native TLS connection,
and what the client sent too early is still in the kernel, where the handshake takes it for TLS and
fails. Where a StreamReader holds some, the standard library's SSLProtocol runs over the connection
and finds those bytes at the start of its own input. So it does for the client's side and for TLS
inside TLS, which are rare on a server.
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
    """Return True for what `start_tls` can upgrade: a `Connection`, or TLS that runs over one."""
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
    """Upgrade a connection to TLS, on whatever loop is running.

    The parameters are those of `loop.start_tls`. What the transport has not sent yet is sent as
    plaintext first.

    Args:
        transport: a connection of the core, or TLS over one; dead afterwards.
        protocol: receives from now on; `connection_made` is not called again.
        context: certificates and what else there is to TLS.
        server_side: this end is the server.
        server_hostname: for the client's side, the name to be verified.
        ssl_handshake_timeout: seconds, by default 60.
        ssl_shutdown_timeout: seconds for the peer's half of the closing, by default 30.

    Returns:
        The new transport.

    Raises:
        TypeError: not a context, or not such a transport.
        ValueError: a timeout is not positive.
        ConnectionError: the connection is closing, ended meanwhile, or the handshake took too long.
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
    """Return the StreamReader behind a protocol, None for other protocols."""
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        return cast(Any, protocol)._stream_reader
    return None


def _take_held(protocol: asyncio.BaseProtocol) -> bytes:
    """Take from a StreamReader what it has received and nobody has read."""
    reader = _reader_of(protocol)
    if reader is None or not reader._buffer:
        return b""
    held = bytes(reader._buffer)
    reader._buffer.clear()
    # Had the reader paused the connection because it held too much, it would now wait for ever.
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
        # Else its flow control would go on asking the old transport.
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
    """Do what asyncio's own start_tls does, with `held` as the first of the encrypted input."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    make: Any = sslproto.SSLProtocol  # whose stub knows whole seconds only
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
    # Nothing may arrive before connection_made has begun the handshake.
    transport.pause_reading()
    transport.set_protocol(upper)
    made = loop.call_soon(upper.connection_made, transport)
    resumed = loop.call_soon(transport.resume_reading)
    try:
        await waiter
        if upper._app_transport is None:
            # Closed by this side meanwhile, which SSLProtocol takes for success.
            raise ConnectionAbortedError("Connection closed during the TLS handshake")
    except BaseException:
        transport.close()
        made.cancel()
        resumed.cancel()
        raise
    return upper._app_transport
