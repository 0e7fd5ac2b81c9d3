"""The server that `create_server` returns: listening sockets, each with an acceptor of the core.

Rules of this file: it has all of `asyncio.Server`, with the semantics and error messages of the
running Python version. Anything more has names that asyncio does not use. Sockets are already
bound, by `listening_sockets`; connections belong to the core.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable, Sequence

from fastlisten._core import Acceptor
from fastlisten.loop.listening_sockets import remove_unix, set_nodelay, set_options

__all__ = ["ConnectionServer"]

#: Before 3.12 asyncio's wait_closed returned at once if the server was closed, even if connections
#: were still open.
WAITS_FOR_CONNECTIONS = sys.version_info >= (3, 12)
#: Some releases close the clients when serve_forever is cancelled, so that it cannot wait for ever
#: (CPython issue 123720). The fix was backported, so the version number does not tell which do.
CLOSES_CLIENTS = "close_clients" in asyncio.Server.serve_forever.__code__.co_names

#: Seconds between two looks at the number of connections in `wait_for_connections`, as in drains.
_COUNT_INTERVAL = 0.05


class ConnectionServer(asyncio.AbstractServer):
    """Listening sockets served by the native core; made by `create_server`.

    Has everything that `asyncio.Server` has, and can also pause, and count connections.

    Args:
        loop: the loop that serves.
        sockets: bound sockets; the server closes them.
        backlog: for listen(2).
        as_asyncio: wait for connections, or close them, only where asyncio's server does so in
            this version of Python.
        file: path and inode of a Unix socket's file to remove when the server is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        backlog: int,
        *,
        as_asyncio: bool = False,
        file: tuple[str, int] | None = None,
    ) -> None:
        self._loop = loop
        # As in asyncio: _sockets is None once closed, _waiters once there is nothing to wait for.
        self._sockets: list[socket.socket] | None = list(sockets)
        self._waiters: list[asyncio.Future[None]] | None = []
        self._backlog = backlog
        self._waits = WAITS_FOR_CONNECTIONS or not as_asyncio
        self._closes_clients = CLOSES_CLIENTS and as_asyncio
        self._file = file
        self._listening = False
        self._retired_statistics: dict[str, int] = {}
        self._acceptors: list[Acceptor] = []
        self._serving_forever: asyncio.Future[None] | None = None

    def prepare(self, options: Iterable[tuple[int, int, int | bytes]]) -> None:
        """Set up the sockets before listen(2), `options` last. Called once."""
        for sock in self._sockets or ():
            sock.setblocking(False)
            set_nodelay(sock)
        set_options(self._sockets or (), options)

    def open(self, make: Callable[[socket.socket, ConnectionServer], Acceptor]) -> None:
        """Make an acceptor for each socket. Called once."""
        for sock in self._sockets or ():
            self._acceptors.append(make(sock, self))

    def _retired(self, acceptor: Acceptor) -> None:
        """Called by the core when the last connection of a closed acceptor has ended."""
        _add(self._retired_statistics, acceptor.statistics())
        self._acceptors.remove(acceptor)
        if self._acceptors:
            return
        self._wake_up()
        if acceptor.engine.idle:
            acceptor.engine.close()

    def _wake_up(self) -> None:
        waiters, self._waiters = self._waiters or (), None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; empty once closed."""
        return tuple(TransportSocket(sock) for sock in self._sockets or ())

    @property
    def connections(self) -> int:
        """The number of open connections, from accept to close."""
        return sum(acceptor.connections for acceptor in self._acceptors)

    def statistics(self) -> dict[str, int]:
        """Return counters since the start.

        ``option_errors`` and ``truncated`` are for users of the library: they appear neither in the
        reports of `Server.control` nor in the metrics.

        Returns:
            accepted: connections accepted, including those of `connect_accepted_socket`.
            refused_limit: connections refused because of `max_connections`.
            refused_total: connections refused because of `server.total-connections`.
            refused_overload: connections refused because descriptors or memory ran out.
            accept_errors: failures of accept(2).
            option_errors: options that the kernel rejected for an accepted socket.
            timed_out: connections closed because the client was silent.
            handshake_failures: TLS handshakes that failed or took too long.
            truncated: TLS connections that ended without close_notify.
        """
        total = dict(self._retired_statistics)
        for acceptor in self._acceptors:
            _add(total, acceptor.statistics())
        return total

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the server runs on."""
        return self._loop

    def is_serving(self) -> bool:
        """Return True while new connections are accepted."""
        if self._sockets is None:
            return False
        return any(not acceptor.paused for acceptor in self._acceptors)

    async def start_serving(self) -> None:
        """Listen and accept; may be called repeatedly."""
        self.resume_accepting()
        await asyncio.sleep(0)

    def pause_accepting(self) -> None:
        """Stop accepting; new clients wait in the backlog, open connections stay open."""
        for acceptor in self._acceptors:
            acceptor.pause()

    def resume_accepting(self) -> None:
        """Accept again after `pause_accepting`, or for the first time."""
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._listening:
            # No earlier, as in asyncio: the kernel refuses clients until the server is started.
            for sock in self._sockets:
                sock.listen(self._backlog)
            self._listening = True
        for acceptor in self._acceptors:
            acceptor.resume()

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close the server and wait as `wait_closed` does.

        A server made by the loop's own `create_server` also closes its clients in the versions of
        Python in which asyncio's does.
        """
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        self.resume_accepting()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            try:
                self.close()
                if self._closes_clients:
                    self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def close(self) -> None:
        """Close the listening sockets; open connections stay open."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        for acceptor in tuple(self._acceptors):
            acceptor.close()
        for sock in sockets:
            sock.close()
        if self._file is not None:
            remove_unix(self._file)
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()
        if not self._acceptors:
            # Never started. Otherwise the core calls _retired when the last acceptor is done.
            self._wake_up()

    def close_clients(self) -> None:
        """Close all connections after sending what is in their write buffers, and the farewell if
        there is one (in asyncio since Python 3.13)."""
        for acceptor in tuple(self._acceptors):
            acceptor.close_clients()

    def abort_clients(self) -> None:
        """Close all connections at once (in asyncio since Python 3.13).

        The protocols get `connection_lost`, and the clients a farewell if there is one and it can
        be sent without waiting.
        """
        for acceptor in tuple(self._acceptors):
            acceptor.abort(farewell=True)

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection has ended.

        On Python 3.11, a server made by the loop's own `create_server` returns at once if it is
        already closed, as asyncio's does.
        """
        if self._waiters is None or (self._sockets is None and not self._waits):
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def wait_for_connections(self, at_most: int = 0) -> None:
        """Wait until no more than so many connections are open.

        It neither stops accepting nor closes anything, so it usually follows `pause_accepting` or
        `close`; bound it with `asyncio.timeout`. To restart a service without cutting sessions::

            server.close()
            async with asyncio.timeout(30):
                await server.wait_for_connections()

        Connections are counted from accept to close, including those of `connect_accepted_socket`.
        They are looked at every 50 ms: nothing is reported to Python when one ends.

        Args:
            at_most: how many may still be open.

        Raises:
            ValueError: it is negative.
        """
        if at_most < 0:
            raise ValueError(f"at_most must be 0 or more, not {at_most}")
        while self.connections > at_most:  # noqa: ASYNC110  (nothing sets an event)
            await asyncio.sleep(_COUNT_INTERVAL)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value
