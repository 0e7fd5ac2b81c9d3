"""`fastlisten.create_server`, for any running asyncio or uvloop loop.

Rules of this file: asyncio's parameters, defaults and errors; additional ones are keyword-only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from ssl import SSLContext, SSLSocket
from typing import Any, Literal

from fastlisten._arena import Arena, Places
from fastlisten._connection import ConnectionAcceptor
from fastlisten._core import Acceptor
from fastlisten._tls import TlsAcceptor, TlsSettings
from fastlisten.loop.connection_server import ConnectionServer
from fastlisten.loop.engines import engine_for
from fastlisten.loop.listening_sockets import bind_all
from fastlisten.loop.tls_arguments import tls_of

__all__ = [
    "create_server",
    "serve",
    "take_sockets",
]


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: SSLContext | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    max_connections: int | Places | None = None,
    limit_action: Literal["refuse", "wait"] = "refuse",
    refusal: bytes = b"",
    options: Iterable[tuple[int, int, int | bytes]] = (),
    lazy: bool = False,
    greeting: bytes = b"",
    server_first: bool | None = None,
    first_byte_timeout: float = 0.0,
    idle_timeout: float = 0.0,
    linger: float = 0.0,
    notice_loss: bool = False,
    farewell_idle: bytes = b"",
    farewell_shutdown: bytes = b"",
) -> ConnectionServer:
    """Create a TCP or Unix stream server on the native accept path of the running loop.

    The parameters up to `start_serving` are those of `loop.create_server`, with its defaults.

    Args:
        protocol_factory: called once per connection, at accept (or at the first byte, see `lazy`).
        host: address or name, several of them, or None for all interfaces.
        port: port number, 0 for an ephemeral one.
        family: restricts name resolution (``socket.AF_INET``, ``socket.AF_INET6``).
        flags: for getaddrinfo(3).
        sock: a bound stream socket, TCP or Unix, instead of host and port; the server closes it.
        backlog: for listen(2).
        ssl: serve TLS with this context.
        reuse_address: SO_REUSEADDR, by default True.
        reuse_port: SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE, inherited by the connections.
        ssl_handshake_timeout: seconds from accept to the end of the handshake, by default 60.
        ssl_shutdown_timeout: seconds to wait for the peer's close_notify, by default 30.
        start_serving: accept at once; if false, call `start_serving()` on the server.
        max_connections: how many connections may be open at a time, over all sockets; or `Places`
            of an arena that several processes share. None: no limit.
        limit_action: at the limit ``refuse`` accepts, sends `refusal` and closes; ``wait``
            leaves clients in the backlog.
        refusal: bytes sent to a refused client. With `ssl` they are not encrypted, so only a TLS
            alert makes sense.
        options: (level, name, value) for setsockopt(2), set before listen(2), inherited by the
            connections.
        lazy: create protocol and transport at the client's first byte instead of at accept.
        greeting: sent natively at accept (with `ssl` after the handshake), at most 65,535 bytes.
        server_first: the server speaks first, and clients wait for it; by default true if there is
            a `greeting`.
        first_byte_timeout: seconds from accept (with `ssl` from the end of the handshake) to the
            client's first byte; 0 for no limit.
        idle_timeout: seconds that a client may be silent after that; 0 for no limit.
        linger: seconds to keep sending after close before the connection is reset; 0 leaves it to
            the kernel.
        notice_loss: call connection_lost also if the connection is reset, or the client stops
            answering, while reading is paused or after the end of input. asyncio notices this at
            the next write, and the connection counts against `max_connections` until then.
        farewell_idle: bytes sent to a client before it is closed by a timeout.
        farewell_shutdown: bytes sent to a client before `close_clients` or `abort_clients`
            closes it.

    Returns:
        The server, which has `asyncio.Server`'s methods and more. Its `wait_closed` waits for the
        last connection on every version of Python, as asyncio's does since 3.12.

    Raises:
        TypeError: `ssl` is not an SSLContext, or `sock` is an SSLSocket.
        ValueError: contradictory or unusable arguments.
        OSError: a socket could not be created, set up or bound; the text names option, value and
            address.
    """
    # Check the arguments before there are sockets to close again.
    tls = tls_of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
    if limit_action not in ("refuse", "wait"):
        raise ValueError(f"limit_action must be 'refuse' or 'wait', not {limit_action!r}")
    if isinstance(max_connections, int) and max_connections < 1:
        raise ValueError(f"max_connections must be at least 1 or None, not {max_connections}")
    loop = asyncio.get_running_loop()
    sockets = await take_sockets(loop, host, port, family, flags, sock, reuse_address, reuse_port)
    return await serve(
        ConnectionServer(loop, sockets, backlog),
        protocol_factory,
        tls,
        {
            "lazy": lazy,
            "server_first": bool(greeting) if server_first is None else server_first,
            "wait": limit_action == "wait",
            "greeting": greeting,
            "refusal": refusal,
            "overload": refusal,
            "linger": linger,
            "first_byte": first_byte_timeout,
            "idle": idle_timeout,
            "notice_loss": notice_loss,
            "farewell_first_byte": farewell_idle,
            "farewell_idle": farewell_idle,
            "farewell_shutdown": farewell_shutdown,
        },
        limit=max_connections,
        options=options,
        keep_alive=keep_alive,
        start=start_serving,
    )


async def take_sockets(
    loop: asyncio.AbstractEventLoop,
    host: str | Sequence[str] | None,
    port: int | None,
    family: int,
    flags: int,
    sock: socket.socket | None,
    reuse_address: bool | None,
    reuse_port: bool | None,
) -> list[socket.socket]:
    """Return bound sockets for the arguments of `loop.create_server`."""
    if isinstance(sock, SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        return await bind_all(loop, host, port, family, flags, reuse_address, reuse_port)
    if sock is None:
        raise ValueError("Neither host/port nor sock were specified")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    return [sock]


async def serve(
    server: ConnectionServer,
    factory: Callable[[], asyncio.BaseProtocol],
    tls: TlsSettings | None,
    settings: Mapping[str, Any],
    *,
    limit: int | Places | None = None,
    options: Iterable[tuple[int, int, int | bytes]] = (),
    keep_alive: bool | None = None,
    start: bool,
) -> ConnectionServer:
    """Set up the sockets of a new server and start accepting; close them on failure.

    Args:
        server: a new server with bound sockets.
        factory: makes a protocol for each connection.
        tls: TLS settings; None for plain connections.
        settings: keyword arguments for `Acceptor`.
        limit: `max_connections` of `create_server`.
        options: (level, name, value) for setsockopt(2).
        keep_alive: SO_KEEPALIVE; None leaves it as it is.
        start: accept at once.

    Returns:
        The server.

    Raises:
        OSError: an option was rejected, listen(2) failed, or descriptors ran out.
        ValueError: the acceptor rejects its arguments.
    """
    try:
        entries = list(options)
        if keep_alive is not None:
            entries.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keep_alive)))
        server.prepare(entries)
        places = limit if isinstance(limit, Places) else _own_places(limit)
        # Last, because an engine that has been made stays if something fails after it.
        engine = engine_for(server.get_loop())

        def acceptor(sock: socket.socket, server: ConnectionServer) -> Acceptor:
            if tls is None:
                return ConnectionAcceptor(
                    engine, sock, factory, server=server, places=places, **settings
                )
            return TlsAcceptor(
                engine, sock, factory, tls=tls, server=server, places=places, **settings
            )

        server.open(acceptor)
        if start:
            server.resume_accepting()
    except BaseException:
        server.close()
        raise
    if start:
        # As in asyncio: the loop runs once, so the server accepts by the time this returns.
        await asyncio.sleep(0)
    return server


def _own_places(limit: int | None) -> Places | None:
    """Return places of an arena for this server alone; None without a limit."""
    if limit is None:
        return None
    arena = Arena(1, 1)
    places = arena.places(0, arena.join())
    places.limit = limit
    return places
