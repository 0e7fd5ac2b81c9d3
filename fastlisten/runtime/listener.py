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

`renew` gives a listener other settings while it is LISTENING or PAUSED: there is a new acceptor for
each socket that needs one. The old one has no socket any more, and keeps its connections, with the
settings and the handler that they began with, until the last one ends.

Rules of this file: a listener does not depend on others; what concerns the whole process is in
server.py and worker.py. The states FULL and TOTAL_FULL are read from the core.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastlisten._arena import Places
from fastlisten._connection import Connection, ConnectionAcceptor
from fastlisten._core import Acceptor, Engine
from fastlisten._tls import TlsAcceptor, TlsConnection, TlsSettings
from fastlisten.addresses import peer_address
from fastlisten.handlers.base import ConnectionInfo, Handler
from fastlisten.runtime.canned_replies import CannedReplies
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all

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


@dataclass(frozen=True, slots=True, kw_only=True)
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

    wait: bool = False
    linger: float = 0.0
    first_byte: float = 0.0
    idle: float = 0.0


class Listener:
    """A listener of the configuration in one process.

    Args:
        name: its id.
        handler: serves its connections; created for this listener.
        sockets: bound, one per bind; the listener closes them.
        policy: the settings of each connection.
        tls: settings of TLS from the first byte; None without implicit TLS.
        unused: called with a handler that `renew` has replaced, when its last connection has ended.

    Attributes:
        name: as given.
        handler: serves new connections.
        sockets: those in use.
        addresses: what the sockets are bound to; set by `listen`, kept after they are closed.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        sockets: Sequence[BoundSocket],
        policy: ConnectionPolicy,
        tls: TlsSettings | None = None,
        unused: Callable[[Handler], object] | None = None,
    ) -> None:
        self.name = name
        self.handler = handler
        self.sockets = tuple(sockets)
        self.addresses: tuple[str, ...] = ()
        self._policy = policy
        self._tls = tls
        self._unused = unused
        self._engine: Engine | None = None
        # Each with its handler; former ones until their last connection ends.
        self._acceptors: dict[Acceptor, Handler] = {}
        self._accepting: dict[socket.socket, Acceptor] = {}
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
            if any(one.full for one in self._accepting.values()):
                return State.FULL
            if any(one.total_reached for one in self._accepting.values()):
                return State.TOTAL_FULL
        return self._state

    @property
    def accepting(self) -> bool:
        """True while every address accepts, or would if the limit were not reached.

        Also false if a socket no longer listens (another process may have shut it down). There is
        no state for that, because nobody asked for it.
        """
        closed = any(one.closed for one in self._accepting.values())
        return self._state is State.LISTENING and not closed

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
        self._engine, self._places = engine, places
        self.addresses = tuple(bound.address for bound in self.sockets)
        self._state = State.LISTENING
        self._accept(self.sockets)

    def _accept(self, sockets: Sequence[BoundSocket]) -> None:
        """Accept on sockets with the current settings."""
        assert self._engine is not None
        replies = CannedReplies.of(self.handler)
        handler = self.handler
        kind: type[ConnectionAcceptor] = ConnectionAcceptor
        more: dict[str, Any] = {}
        if self._tls is not None:
            kind, more = TlsAcceptor, {"tls": self._tls}
        added: list[Acceptor] = []
        for bound in sockets:
            acceptor: Acceptor = kind(
                self._engine,
                bound.sock,
                _factory(self.name, handler, self._tls is not None),
                server=self,
                listener=self.name,
                with_connection=True,
                places=self._places,
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
                own_queue=bound.worker is not None,
                **more,
            )
            self._acceptors[acceptor] = handler
            self._accepting[bound.sock] = acceptor
            added.append(acceptor)
        if self._state is State.LISTENING:
            for acceptor in added:
                acceptor.resume()

    def renew(
        self,
        handler: Handler,
        sockets: Sequence[BoundSocket],
        policy: ConnectionPolicy,
        tls: TlsSettings | None,
    ) -> None:
        """Use other settings for new connections; open connections keep theirs.

        Args:
            handler: for new connections; may be the current one.
            sockets: bound and listening; those in use that are not among them are closed.
            policy: the settings of each new connection.
            tls: settings of TLS from the first byte.
        """
        if self._state not in (State.LISTENING, State.PAUSED):
            raise RuntimeError(f'listener "{self.name}" is {self._state.value}')
        same = handler is self.handler and policy == self._policy and tls is self._tls
        served = self._in_use(self.handler)
        former = {bound.sock: bound for bound in self.sockets}
        replaced, self.handler = self.handler, handler
        self._policy, self._tls = policy, tls
        self.sockets = tuple(sockets)
        self.addresses = tuple(bound.address for bound in sockets)
        other: list[BoundSocket] = []
        for bound in sockets:
            before = former.pop(bound.sock, None)
            options = before and before.accepted.entries
            if same and bound.sock in self._accepting and options == bound.accepted.entries:
                continue
            other.append(bound)
        gone = tuple(former.values())
        for bound in (*other, *gone):
            self._stop_accepting(bound.sock)
        close_all(gone)
        self._accept(other)
        if replaced is not handler and not served:  # else _retired has called it, or will
            self._replaced(replaced)

    def give_away(self, bound: BoundSocket) -> None:
        """Stop accepting on a socket that another listener takes over; it stays open."""
        self._stop_accepting(bound.sock)
        self.sockets = tuple(one for one in self.sockets if one.sock is not bound.sock)

    def _stop_accepting(self, sock: socket.socket) -> None:
        acceptor = self._accepting.pop(sock, None)
        if acceptor is not None:
            acceptor.close()

    def _in_use(self, handler: Handler) -> bool:
        """Whether a handler has an acceptor, and so may have connections."""
        return any(one is handler for one in self._acceptors.values())

    def _replaced(self, handler: Handler) -> None:
        """A handler that `renew` has replaced has no connections any more."""
        if self._unused is not None:
            self._unused(handler)

    def pause(self) -> None:
        """Stop accepting; new clients wait in the backlog, open connections stay open."""
        if self._state is State.LISTENING:
            for acceptor in self._accepting.values():
                acceptor.pause()
            self._state = State.PAUSED

    def resume(self) -> None:
        """Accept again after `pause`."""
        if self._state is State.PAUSED:
            for acceptor in self._accepting.values():
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
            self._accepting.clear()
            if not acceptors:
                self._finish()
                return 0
            for acceptor in acceptors:
                acceptor.close()
            close_all(self.sockets)
            self._tell_handlers()
        left = sum(acceptor.drain() for acceptor in tuple(self._acceptors))
        if left and time.monotonic() - self._drain_began > _CLOSE_NOTIFY_TIMEOUT:
            self._end_unanswered()
        return left

    def _tell_handlers(self) -> None:
        handlers = {id(one): one for one in (self.handler, *self._acceptors.values())}
        for handler in handlers.values():
            try:
                handler.drain()
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
        handler = self._acceptors.pop(acceptor)
        if handler is not self.handler and not self._in_use(handler):
            self._replaced(handler)
        if self._state is State.DRAINING and not self._acceptors:
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
