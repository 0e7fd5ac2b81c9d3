"""The library's way in: `create_server` on any running asyncio or uvloop loop.

Rules of this file: asyncio's names, defaults and errors; what goes beyond them is keyword-only.
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
        protocol_factory: called once per connection, at accept (or at its first byte, see `lazy`).
        host: address or name, several of them, or None for all interfaces.
        port: port number, 0 for an ephemeral one.
        family: restricts name resolution (``socket.AF_INET``, ``socket.AF_INET6``).
        flags: for getaddrinfo(3).
        sock: a bound stream socket instead of host and port, TCP or Unix; taken over.
        backlog: for listen(2).
        ssl: serve TLS with this context.
        reuse_address: SO_REUSEADDR, by default True.
        reuse_port: SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE, inherited by the connections.
        ssl_handshake_timeout: seconds from accept to the end of the handshake, by default 60.
        ssl_shutdown_timeout: seconds that a peer has for its half of the closing, by default 30.
        start_serving: accept at once; else from `start_serving()` on.
        max_connections: most connections at the same time over all sockets, from accept to
            close; or `Places` of an arena that several processes share. None: no limit.
        limit_action: at the limit ``refuse`` accepts, sends `refusal` and closes; ``wait``
            leaves clients in the backlog.
        refusal: what a refused client is told; with `ssl` it is sent as it is, so that only a TLS
            alert makes sense.
        options: (level, name, value) for setsockopt(2), set before listen(2), inherited by the
            connections.
        lazy: make protocol and transport only at a client's first byte.
        greeting: sent natively at accept (with `ssl` after the handshake), at most 65,535 bytes.
        server_first: a client says nothing before it has heard the server; default: whether
            there is a `greeting`.
        first_byte_timeout: seconds that a client may be silent after accept (after the handshake);
            0 for ever.
        idle_timeout: seconds between two inputs of a client; 0 for ever.
        linger: seconds to go on sending after close, then reset; 0 leaves it to the kernel.
        notice_loss: call connection_lost also when a connection is reset, or its client does not
            answer any more, while reading is paused or input has ended. asyncio notices it at the
            next write, and the place is held until then.
        farewell_idle: what a client is told before it is closed for its silence.
        farewell_shutdown: what a client is told that `close_clients` or `abort_clients` ends.

    Returns:
        The server; `asyncio.Server`'s methods and more. Its `wait_closed` waits for the last
        connection on every version of Python, as asyncio's does since 3.12.

    Raises:
        TypeError: `ssl` is no context, or `sock` is an SSLSocket.
        ValueError: contradictory or unusable arguments.
        OSError: a socket could not be made, bound or set; names option, value and address.
    """
    # Whatever is wrong is found before a socket is made, which would have to be closed again.
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
    """Return the bound sockets that the arguments of `loop.create_server` mean."""
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
    """Set up the sockets of a new server and let it accept; on failure they are closed.

    Args:
        server: made with its bound sockets.
        factory: makes a protocol for each connection.
        tls: serve TLS with these settings; None: plain.
        settings: keyword arguments of `Acceptor`.
        limit: `max_connections` of `create_server`.
        options: (level, name, value) for setsockopt(2).
        keep_alive: SO_KEEPALIVE; None leaves it as it is.
        start: accept at once.

    Returns:
        The server.

    Raises:
        OSError: an option was rejected, listen(2) failed, or there is no descriptor left.
        ValueError: of the acceptor.
    """
    try:
        entries = list(options)
        if keep_alive is not None:
            entries.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keep_alive)))
        server.prepare(entries)
        places = limit if isinstance(limit, Places) else _own_places(limit)
        # Last, since it stays if something fails after it.
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
        # As asyncio does: a task that connects right after this finds the server accepting.
        await asyncio.sleep(0)
    return server


def _own_places(limit: int | None) -> Places | None:
    """Return the places of a limit that only this server counts under."""
    if limit is None:
        return None
    arena = Arena(1, 1)
    places = arena.places(0, arena.join())
    places.limit = limit
    return places
