"""The library's way in: `create_server` on any running asyncio or uvloop loop.

Rules of this file: asyncio's names, defaults and errors; what goes beyond them is keyword-only.
One engine per loop, made with its first server and closed with its last.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import sys
import weakref
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from fastlisten._connection import ConnectionAcceptor
from fastlisten._core import Acceptor, Arena, Engine, OptionBatch, Places
from fastlisten.runtime.records import log_records

__all__ = ["ConnectionServer", "create_server", "engine_for"]

#: Engines by id of their loop. An engine is kept alive by its loop (as a reader callback) and by
#: its acceptors; when both are gone it closes itself.
_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


def engine_for(loop: asyncio.AbstractEventLoop) -> Engine:
    """Return the engine of a loop, a new one if it has none.

    Args:
        loop: a uvloop loop or an asyncio selector loop.

    Raises:
        OSError: no descriptor or memory for the engine.
    """
    engine = _engines.get(id(loop))
    if engine is None or engine.closed or engine.loop is not loop:
        engine = Engine(loop)
        engine.sink = log_records
        _engines[id(loop)] = engine
    return engine


class ConnectionServer(asyncio.AbstractServer):
    """Listening sockets served by the native core; made by `create_server`.

    Has all of `asyncio.Server`, and on top of it pausing, the number of connections, counters.

    Attributes:
        sockets: the listening sockets; empty once closed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sockets: Sequence[socket.socket], backlog: int
    ) -> None:
        self._loop = loop
        self._sockets: list[socket.socket] = list(sockets)
        self._backlog = backlog
        self._listening = False
        self._retired_statistics: dict[str, int] = {}
        self._acceptors: list[Acceptor] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._serving_forever: asyncio.Future[None] | None = None
        self._closed = False

    def _open(
        self,
        factory: Callable[..., asyncio.BaseProtocol],
        places: Places | None,
        options: dict[str, Any],
    ) -> None:
        engine = engine_for(self._loop)
        for sock in self._sockets:
            sock.setblocking(False)
            self._acceptors.append(
                ConnectionAcceptor(engine, sock, factory, server=self, places=places, **options)
            )

    def _retired(self, acceptor: Acceptor) -> None:
        """Note that the last connection of a closed acceptor has ended. Called by the core."""
        _add(self._retired_statistics, acceptor.statistics())
        self._acceptors.remove(acceptor)
        if self._acceptors:
            return
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if acceptor.engine.idle:
            acceptor.engine.close()

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; empty once closed."""
        return tuple(TransportSocket(sock) for sock in self._sockets)

    @property
    def connections(self) -> int:
        """Connections in flight, from accept to close."""
        return sum(acceptor.connections for acceptor in self._acceptors)

    def statistics(self) -> dict[str, int]:
        """Return the counters since the start: accepted, refused_limit, refused_overload, ..."""
        total = dict(self._retired_statistics)
        for acceptor in self._acceptors:
            _add(total, acceptor.statistics())
        return total

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Return True while new connections are accepted."""
        return not self._closed and any(not acceptor.paused for acceptor in self._acceptors)

    async def start_serving(self) -> None:
        """Listen and accept; may be called repeatedly."""
        self.resume_accepting()
        await asyncio.sleep(0)

    def pause_accepting(self) -> None:
        """Stop accepting; new clients wait in the backlog, connections go on."""
        for acceptor in self._acceptors:
            acceptor.pause()

    def resume_accepting(self) -> None:
        """Accept again after `pause_accepting`, or for the first time."""
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._listening:
            # As in asyncio not before: a client of a server that is not started is refused.
            for sock in self._sockets:
                sock.listen(self._backlog)
            self._listening = True
        for acceptor in self._acceptors:
            acceptor.resume()

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close and wait until the connections have ended."""
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self.resume_accepting()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            try:
                self.close()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def close(self) -> None:
        """Stop accepting for good and close the listening sockets; connections go on."""
        if self._closed:
            return
        self._closed = True
        sockets, self._sockets = self._sockets, []
        for acceptor in tuple(self._acceptors):
            acceptor.close()
        for sock in sockets:
            sock.close()
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()

    def close_clients(self) -> None:
        """Close all connections once their write buffers are sent (asyncio, Python 3.13)."""
        for acceptor in tuple(self._acceptors):
            acceptor.close_clients()

    def abort_clients(self) -> None:
        """Close all connections at once; their protocols are told (asyncio, Python 3.13)."""
        for acceptor in tuple(self._acceptors):
            acceptor.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection has ended."""
        if not self._acceptors:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: None = None,
    ssl_shutdown_timeout: None = None,
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
        ssl: must be None: this version serves plain connections only.
        reuse_address: SO_REUSEADDR, by default True.
        reuse_port: SO_REUSEPORT.
        keep_alive: SO_KEEPALIVE, inherited by the connections.
        ssl_handshake_timeout: must be None, like `ssl`.
        ssl_shutdown_timeout: must be None, like `ssl`.
        start_serving: accept at once; else from `start_serving()` on.
        max_connections: most connections at the same time over all sockets, from accept to
            close; or `Places` of an arena that several processes share. None: no limit.
        limit_action: at the limit ``refuse`` accepts, sends `refusal` and closes; ``wait``
            leaves clients in the backlog.
        refusal: what a refused client is told.
        options: (level, name, value) for setsockopt(2), set before listen(2), inherited by the
            connections.
        lazy: make protocol and transport only at a client's first byte.
        greeting: sent natively at accept, at most 65,535 bytes.
        server_first: a client says nothing before it has heard the server; default: whether
            there is a `greeting`.
        first_byte_timeout: seconds that a client may be silent after accept; 0 for ever.
        idle_timeout: seconds between two inputs of a client; 0 for ever.
        linger: seconds to go on sending after close, then reset; 0 leaves it to the kernel.

    Returns:
        The server; `asyncio.Server`'s methods and more.

    Raises:
        ValueError: contradictory or unusable arguments.
        OSError: a socket could not be made, bound or set; names option, value and address.
    """
    if ssl is not None or ssl_handshake_timeout is not None or ssl_shutdown_timeout is not None:
        raise ValueError("ssl is not available: this version serves plain connections only")
    if limit_action not in ("refuse", "wait"):
        raise ValueError(f"limit_action must be 'refuse' or 'wait', not {limit_action!r}")
    if isinstance(max_connections, int) and max_connections < 1:
        raise ValueError(f"max_connections must be at least 1 or None, not {max_connections}")
    loop = asyncio.get_running_loop()
    if sock is not None:
        if host is not None or port is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        sockets = [sock]
    elif host is None and port is None:
        raise ValueError("Neither host/port nor sock were specified")
    else:
        sockets = await _bind_all(loop, host, port, family, flags, reuse_address, reuse_port)
    server = ConnectionServer(loop, sockets, backlog)
    try:
        for one in sockets:
            if one.proto == socket.IPPROTO_TCP:
                # asyncio sets it on every connection; on Linux they inherit it.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        entries = [
            (
                level,
                name,
                value.to_bytes(4, sys.byteorder, signed=True) if isinstance(value, int) else value,
            )
            for level, name, value in options
        ]
        if keep_alive is not None:
            entries.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, _int_bytes(keep_alive)))
        _set_options(sockets, entries)
        places: Places | None = None
        if isinstance(max_connections, Places):
            places = max_connections
        elif max_connections is not None:
            arena = Arena(1, 1)
            places = arena.places(0, arena.join())
            places.limit = max_connections
        server._open(
            protocol_factory,
            places,
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
            },
        )
        if start_serving:
            server.resume_accepting()
    except BaseException:
        server.close()
        raise
    if start_serving:
        # As asyncio does: a task that connects right after this finds the server accepting.
        await asyncio.sleep(0)
    return server


def _int_bytes(value: int) -> bytes:
    return int(value).to_bytes(4, sys.byteorder, signed=True)


def _set_options(sockets: Sequence[socket.socket], entries: list[tuple[int, int, bytes]]) -> None:
    batch = OptionBatch(entries)
    for sock in sockets:
        for index, number in batch.apply(sock.fileno()):
            level, name, value = entries[index]
            raise OSError(
                number,
                f"setsockopt({level}, {name}, {value!r}) on {sock.getsockname()!r}: "
                f"{os.strerror(number)}",
            )


async def _bind_all(
    loop: asyncio.AbstractEventLoop,
    host: str | Sequence[str] | None,
    port: int | None,
    family: int,
    flags: int,
    reuse_address: bool | None,
    reuse_port: bool | None,
) -> list[socket.socket]:
    """Resolve and bind as `loop.create_server` does; all or none."""
    if isinstance(port, int) and not 0 <= port <= 65535:
        # getaddrinfo would take it modulo 65,536.
        raise OverflowError("bind(): port must be 0-65535.")
    hosts: Sequence[str | None]
    hosts = [None] if host in (None, "") else [host] if isinstance(host, str) else list(host or ())
    found = await asyncio.gather(
        *(
            loop.getaddrinfo(one, port, family=family, type=socket.SOCK_STREAM, flags=flags)
            for one in hosts
        )
    )
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for info in dict.fromkeys(itertools.chain.from_iterable(found)):
            address_family, kind, protocol, _, address = info
            try:
                sock = socket.socket(address_family, kind, protocol)
            except OSError:
                # A host without this family; another address may do.
                continue
            sockets.append(sock)
            if reuse_address is None or reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if address_family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as error:
                failure = OSError(
                    error.errno,
                    f"error while attempting to bind on address {address!r}: "
                    f"{(error.strerror or '').lower()}",
                )
                if error.errno != errno.EADDRNOTAVAIL:
                    raise failure from None
                # As above: ::1 of a host that has IPv6 only in name (asyncio since 3.12).
                sockets.pop().close()
                unavailable = unavailable or failure
        if not sockets and unavailable is not None:
            raise unavailable
        if not sockets:
            tried = [info[4] for one in found for info in one]
            raise OSError(f"could not bind on any address out of {tried!r}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
