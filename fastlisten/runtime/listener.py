"""One listener: its sockets, its handler, its limit and its states.

    BOUND --listen()--> LISTENING <--resume()/pause()--> PAUSED
                         |    ^                            |
          limit reached  |    | a place is given back      |
          (wait)         v    |                            |
                         FULL-+                            |
                          |                                |
                          +-------------drain()------------+---> DRAINING --last one gone--> CLOSED

    BOUND      the sockets are bound, but don't listen, so that clients never see a failed start
    LISTENING  accepting
    FULL       limit-action = "wait", and no place is left: clients wait in the backlog
    TOTAL_FULL the same, because server.total-connections is reached
    PAUSED     not accepting, on request (also from FULL); open connections stay open
    DRAINING   no longer accepting; busy connections may finish, idle ones got a farewell
    CLOSED     all sockets and connections are closed

Rules of this file: a listener does not depend on others; what concerns the whole process is in
server.py and worker.py. The states FULL and TOTAL_FULL are read from the core.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastlisten._arena import Places
from fastlisten._connection import Connection, ConnectionAcceptor
from fastlisten._core import Acceptor, Engine
from fastlisten._tls import TlsAcceptor, TlsConnection, TlsSettings
from fastlisten.addresses import peer_address
from fastlisten.handlers.base import ConnectionInfo, Handler
from fastlisten.runtime.canned_replies import CannedReplies
from fastlisten.runtime.sockets.opening import BoundSocket, close_all

__all__ = ["ConnectionPolicy", "Listener", "State"]

logger = logging.getLogger("fastlisten")

#: Seconds that a drain waits for clients to answer close_notify: as long as the core waits for
#: clients that it refuses. Everything has been sent by then. Without this bound, a client that
#: hangs or is gone would delay the end of the server by the whole shutdown timeout.
_CLOSE_NOTIFY_TIMEOUT = 2.0


class State(enum.Enum):
    """The state of a listener; see the diagram at the head of the module."""

    BOUND = "bound"
    LISTENING = "listening"
    FULL = "full"
    TOTAL_FULL = "total-full"
    PAUSED = "paused"
    DRAINING = "draining"
    CLOSED = "closed"


class ConnectionPolicy:
    """The settings of every connection of a listener.

    Attributes:
        wait: at the limit, leave clients in the backlog instead of refusing them.
        linger: seconds to keep sending after close before the connection is reset; 0 leaves it to
            the kernel.
        first_byte: seconds from accept (with implicit TLS from the end of the handshake) to the
            client's first byte; 0 for no limit.
        idle: seconds that a client may be silent after that; 0 for no limit.
    """

    __slots__ = ("first_byte", "idle", "linger", "wait")

    def __init__(
        self,
        *,
        wait: bool = False,
        linger: float = 0.0,
        first_byte: float = 0.0,
        idle: float = 0.0,
    ) -> None:
        self.wait = wait
        self.linger = linger
        self.first_byte = first_byte
        self.idle = idle


class Listener:
    """A listener of the configuration in one process.

    Args:
        name: its id.
        handler: serves its connections; created for this listener.
        sockets: bound, one per bind; the listener closes them.
        policy: the settings of each connection.
        tls: settings of TLS from the first byte; None without implicit TLS.

    Attributes:
        name: as given.
        handler: as given.
        sockets: as given.
        addresses: what the sockets are bound to; set by `listen`, kept after they are closed.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        sockets: Sequence[BoundSocket],
        policy: ConnectionPolicy,
        tls: TlsSettings | None = None,
    ) -> None:
        self.name = name
        self.handler = handler
        self.sockets = tuple(sockets)
        self.addresses: tuple[str, ...] = ()
        self._policy = policy
        self._tls = tls
        self._acceptors: list[Acceptor] = []
        # Counts of closed acceptors, so that counters never decrease.
        self._retired_statistics: dict[str, int] = {}
        self._retired_errors: dict[int, int] = {}
        self._places: Places | None = None
        self._state = State.BOUND
        self._drained: asyncio.Event = asyncio.Event()
        self._drain_began = 0.0

    @property
    def state(self) -> State:
        """The current state."""
        if self._state is State.LISTENING:
            if any(one.full for one in self._acceptors):
                return State.FULL
            if any(one.total_reached for one in self._acceptors):
                return State.TOTAL_FULL
        return self._state

    @property
    def accepting(self) -> bool:
        """True while every address accepts, or would if the limit were not reached.

        Also false if a socket no longer listens (another process may have shut it down). There is
        no state for that, because nobody asked for it.
        """
        return self._state is State.LISTENING and not any(one.closed for one in self._acceptors)

    @property
    def waits(self) -> bool:
        """True if clients above the limit wait in the backlog, False if they are refused."""
        return self._policy.wait

    @property
    def connections(self) -> int:
        """The number of open connections in this process, from accept to close."""
        return sum(acceptor.connections for acceptor in self._acceptors)

    @property
    def places(self) -> Places | None:
        """The counter behind `max-connections`, None before `listen`."""
        return self._places

    def statistics(self) -> dict[str, int]:
        """Return the counters of this process, by name."""
        total = dict(self._retired_statistics)
        for acceptor in self._acceptors:
            _add(total, acceptor.statistics())
        return total

    def accept_errors(self) -> dict[int, int]:
        """Return how often accept(2) failed in this process, by errno; 0 counts all others."""
        total = dict(self._retired_errors)
        for acceptor in self._acceptors:
            _add(total, acceptor.accept_errors())
        return total

    def listen(self, engine: Engine, places: Places | None) -> None:
        """Pass the listening sockets to the core and start accepting.

        Args:
            engine: the engine of the running loop.
            places: counts this listener's connections over all processes; None for no limit.
        """
        if self._state is not State.BOUND:
            raise RuntimeError(f'listener "{self.name}" is {self._state.value}, not bound')
        replies = CannedReplies.of(self.handler)
        handler = self.handler
        self.addresses = tuple(bound.address for bound in self.sockets)
        self._places = places
        kind: type[ConnectionAcceptor] = ConnectionAcceptor
        more: dict[str, Any] = {}
        if self._tls is not None:
            kind, more = TlsAcceptor, {"tls": self._tls}
        for bound in self.sockets:
            self._acceptors.append(
                kind(
                    engine,
                    bound.sock,
                    _factory(self.name, handler, self._tls is not None),
                    server=self,
                    listener=self.name,
                    with_connection=True,
                    places=places,
                    options=bound.accepted if len(bound.accepted) else None,
                    lazy=handler.lazy,
                    server_first=handler.server_speaks_first,
                    wait=self._policy.wait,
                    greeting=replies.greeting,
                    refusal=replies.refusal,
                    overload=replies.overload,
                    farewell_first_byte=replies.farewell_first_byte,
                    farewell_idle=replies.farewell_idle,
                    farewell_shutdown=replies.farewell_shutdown,
                    linger=self._policy.linger,
                    first_byte=self._policy.first_byte,
                    idle=self._policy.idle,
                    notice_loss=True,
                    **more,
                )
            )
        self._state = State.LISTENING
        for acceptor in self._acceptors:
            acceptor.resume()

    def pause(self) -> None:
        """Stop accepting; new clients wait in the backlog, open connections stay open."""
        if self._state is State.LISTENING:
            for acceptor in self._acceptors:
                acceptor.pause()
            self._state = State.PAUSED

    def resume(self) -> None:
        """Accept again after `pause`."""
        if self._state is State.PAUSED:
            for acceptor in self._acceptors:
                acceptor.resume()
            self._state = State.LISTENING

    def drain(self) -> int:
        """Close the sockets, close idle connections with a farewell, let busy ones finish.

        Call it again until it returns 0; each call closes connections that have become idle.

        Returns:
            How many descriptors are still in use.
        """
        if self._state is State.CLOSED:
            return 0
        if self._state is not State.DRAINING:
            self._state = State.DRAINING
            self._drain_began = time.monotonic()
            acceptors = tuple(self._acceptors)
            if not acceptors:
                self._finish()
                return 0
            for acceptor in acceptors:
                acceptor.close()
            close_all(self.sockets)
            self._tell_handler()
        left = sum(acceptor.drain() for acceptor in tuple(self._acceptors))
        if left and time.monotonic() - self._drain_began > _CLOSE_NOTIFY_TIMEOUT:
            self._end_unanswered()
        return left

    def _tell_handler(self) -> None:
        try:
            self.handler.drain()
        except Exception:
            # Not our code; the connections must be closed whatever it does.
            logger.exception('listener "%s": its handler failed to drain', self.name)

    def _end_unanswered(self) -> None:
        """Close connections that are only waiting for their client's close_notify."""
        for acceptor in tuple(self._acceptors):
            for one in acceptor.endpoints():
                closing = isinstance(one, TlsConnection) and one.is_closing()
                if closing and not one.get_write_buffer_size():
                    one.abort()

    def abort(self) -> int:
        """Close all connections at once; send a farewell if that is possible without waiting.

        Returns:
            How many there were.
        """
        return sum(acceptor.abort(farewell=True) for acceptor in tuple(self._acceptors))

    async def closed(self) -> None:
        """Wait until the state is CLOSED."""
        await self._drained.wait()

    def _retired(self, acceptor: Acceptor) -> None:
        """Called by the core when the last connection of a closed acceptor has ended."""
        _add(self._retired_statistics, acceptor.statistics())
        _add(self._retired_errors, acceptor.accept_errors())
        self._acceptors.remove(acceptor)
        if not self._acceptors:
            self._finish()

    def _finish(self) -> None:
        self._state = State.CLOSED
        close_all(self.sockets)
        self._drained.set()

    def __repr__(self) -> str:
        return (
            f"<Listener {self.name!r} {self.state.value} {[one.bind.text for one in self.sockets]}>"
        )


_Name = TypeVar("_Name", str, int)


def _add(total: dict[_Name, int], more: dict[_Name, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _factory(
    listener: str, handler: Handler, tls: bool
) -> Callable[[Connection], asyncio.BaseProtocol]:
    """Return the function that the core calls once per connection to make the protocol object."""

    connect: Callable[[ConnectionInfo], asyncio.BaseProtocol | None] = handler.connection

    def make(connection: Connection) -> asyncio.BaseProtocol:
        peer = connection.get_extra_info("peername")
        address, port = (peer_address(peer), peer[1]) if peer else ("", 0)
        protocol = connect(ConnectionInfo(listener, address, port, tls))
        if protocol is None:  # a forgotten `return`
            name = type(handler).__name__
            raise TypeError(f'listener "{listener}": {name}.connection() returned None')
        return protocol

    return make
