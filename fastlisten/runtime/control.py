"""What may be asked of a running server, and done to it, by whoever is allowed to.

Rules of this file: no protocol in it. It is called on the server's loop and never blocks; a
listener is named by its id. Who may do what is decided by whoever carries the request here, and
how it is done by the listener.

What is done holds until the process ends: it is not written into the configuration. A listener
that has been drained has given its sockets back; only a restart brings it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastlisten.errors import FastlistenError
from fastlisten.handlers.smtp.engine.counts import Counts
from fastlisten.log_events import log
from fastlisten.runtime.listener import Listener, State

if TYPE_CHECKING:
    from fastlisten.runtime.server import Server

__all__ = ["MAX_LIMIT", "Control", "ImpossibleError", "ListenerReport", "UnknownListenerError"]

logger = logging.getLogger("fastlisten")

#: The largest `max-connections`, as in the configuration.
MAX_LIMIT = 2**31 - 1

#: How often a drain looks again whether a busy connection has become idle, in seconds. Short
#: beside a transaction, long beside a look (a scan of the table of slots).
DRAIN_PAUSE = 0.05

#: A pause that took so many seconds more than it should have: the process itself stood still, and
#: its clients are not made to pay for it.
STOOD_STILL = 1.0

#: How many listeners are looked at before others have their turn on the loop: about a millisecond.
_BATCH = 100


class UnknownListenerError(FastlistenError):
    """There is no listener of that id; `id` is what was asked for."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f'there is no listener "{id}"')


class ImpossibleError(FastlistenError):
    """A listener cannot do what was asked for, being in the state `state`."""

    def __init__(self, id: str, state: State, wanted: str) -> None:
        self.id = id
        self.state = state
        super().__init__(
            f'listener "{id}" is {state.value} and cannot be {wanted}; a restart brings it back'
        )


@dataclass(frozen=True, slots=True)
class ListenerReport:
    """What a listener is at one moment.

    Attributes:
        id: as the configuration names it.
        protocol: in lower case.
        state: where it is.
        accepting: every address accepts, or would if there were a place.
        addresses: as they are bound, with the port that the kernel chose: ``127.0.0.1:25``,
            ``[::]:25``, ``unix:/run/lmtp``; what they were once it is closed.
        connections: in flight in this process, from accept to close.
        held: in flight in all processes.
        limit: `max-connections` as it holds now.
        limit_action: ``refuse`` or ``wait``.
        accepted: connections accepted since the start.
        refused: connections refused since the start, by reason: ``limit``, ``overload``.
        accept_errors: failures of accept(2) since the start, by errno; 0 stands for others.
        handshake_failures: failed TLS handshakes since the start.
        timed_out: connections closed for silence since the start.
        mail: what was counted of its mail since the start, None where it has none.
    """

    id: str
    protocol: str
    state: State
    accepting: bool
    addresses: tuple[str, ...]
    connections: int
    held: int
    limit: int
    limit_action: Literal["refuse", "wait"]
    accepted: int
    refused: Mapping[str, int]
    accept_errors: Mapping[int, int]
    handshake_failures: int
    timed_out: int
    mail: Counts | None


class Control:
    """The one way from outside into a running server.

    Args:
        server: whose listeners are meant; it may start later.

    Attributes:
        worker: the number of this process among those that serve the same listeners.
        worker_restarts: how often a worker was replaced because it had ended unasked.
    """

    worker = 0
    worker_restarts = 0

    def __init__(self, server: Server) -> None:
        self._server = server
        self._drains: dict[str, asyncio.Task[None]] = {}

    # -- asking

    @property
    def ready(self) -> bool:
        """True while every listener accepts, or would if it had a place.

        A listener that is paused or drained makes the server unready although that was asked
        for: whoever asks wants to know whether clients can be sent here.
        """
        return self._server.accepting

    def not_accepting(self) -> list[tuple[str, State]]:
        """Return id and state of the listeners because of which the server is not ready."""
        return [(one.name, one.state) for one in self._server.listeners if not one.accepting]

    @property
    def reload_succeeded(self) -> bool:
        """False if what was read at the last reload could not be used; true before the first."""
        return self._server.reload_succeeded

    async def reports(self) -> list[ListenerReport]:
        """Return what all listeners are, in order of id; each at a moment of its own."""
        found = []
        for number, listener in enumerate(self._server.listeners, 1):
            found.append(_report(listener))
            if number % _BATCH == 0:
                await asyncio.sleep(0)
        return found

    def report(self, id: str) -> ListenerReport:
        """Return what one listener is.

        Raises:
            UnknownListenerError: there is none of that id.
        """
        return _report(self._listener(id))

    def certificate_expiry(self) -> Mapping[str, Mapping[str, float]]:
        """Return until when certificates are valid, in Unix time, by listener and certificate.

        The self-signed certificate has the empty name.
        """
        return self._server.certificates.expiry()

    # -- doing: `by` is who asked for it, in words for the log

    def pause(self, id: str, by: str) -> None:
        """Let a listener accept no more until `resume`: clients wait, connections go on.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
        """
        listener = self._living(id, "paused")
        if listener.state is not State.PAUSED:
            listener.pause()
            text = 'listener "%s": paused by %s'
            log(logger, logging.INFO, "listener-paused", text, id, by, listener=id, by=by)

    def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
        """
        listener = self._living(id, "resumed")
        if listener.state is State.PAUSED:
            listener.resume()
            text = 'listener "%s": resumed by %s'
            log(logger, logging.INFO, "listener-resumed", text, id, by, listener=id, by=by)

    def drain(self, id: str, by: str) -> None:
        """Close a listener for good: idle clients hear a farewell, busy ones may finish.

        They have `server.shutdown-timeout`, as when the server ends. Returns at once.

        Raises:
            UnknownListenerError: there is none of that id.
        """
        listener = self._listener(id)
        if listener.state in (State.DRAINING, State.CLOSED):
            return
        text = 'listener "%s": draining, asked for by %s'
        log(logger, logging.INFO, "listener-draining", text, id, by, listener=id, by=by)
        left = listener.drain()
        if left:
            task = asyncio.get_running_loop().create_task(self._finish(listener))
            self._drains[id] = task
            task.add_done_callback(lambda _: self._drains.pop(id, None))

    def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start.

        Connections beyond a smaller limit go on; new ones are accepted when they have ended.

        Args:
            id: of the listener.
            limit: from 1 to `MAX_LIMIT`.
            by: who asked for it.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
            ValueError: the limit is out of range.
        """
        listener = self._living(id, "given another limit")
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"a limit must be from 1 to {MAX_LIMIT}, not {limit}")
        places = listener.places
        assert places is not None
        before, places.limit = places.limit, limit
        if before != limit:
            text = 'listener "%s": max-connections set to %d by %s, was %d'
            values = (id, limit, by, before)
            fields: dict[str, object] = {"listener": id, "limit": limit, "by": by}
            log(logger, logging.INFO, "limit-changed", text, *values, **fields)

    async def close(self) -> None:
        """Leave drains that are under way to the server, which ends."""
        drains = list(self._drains.values())
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)

    async def _finish(self, listener: Listener) -> None:
        timeout = self._server.config.process["server.shutdown-timeout"]
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        while (left := listener.drain()) and loop.time() < ends:
            began = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.closed(), DRAIN_PAUSE)
            late = loop.time() - began - DRAIN_PAUSE
            if late > STOOD_STILL:
                ends += late
        if left:
            cut = listener.abort()
            log(
                logger,
                logging.WARNING,
                "connections-cut",
                'listener "%s": closed %d connection(s) that had not finished in %g s',
                listener.name,
                cut,
                timeout,
                listener=listener.name,
                count=cut,
            )
        await listener.closed()
        name = listener.name
        log(logger, logging.INFO, "listener-closed", 'listener "%s": closed', name, listener=name)

    def _listener(self, id: str) -> Listener:
        for listener in self._server.listeners:
            if listener.name == id:
                return listener
        raise UnknownListenerError(id)

    def _living(self, id: str, wanted: str) -> Listener:
        listener = self._listener(id)
        if listener.state in (State.DRAINING, State.CLOSED):
            raise ImpossibleError(id, listener.state, wanted)
        return listener


def _report(listener: Listener) -> ListenerReport:
    counted = listener.statistics()
    places = listener.places
    return ListenerReport(
        id=listener.name,
        protocol=listener.handler.settings.protocol,
        state=listener.state,
        accepting=listener.accepting,
        addresses=listener.addresses,
        connections=listener.connections,
        held=places.count if places is not None else 0,
        limit=places.limit if places is not None else 0,
        limit_action="wait" if listener.waits else "refuse",
        accepted=counted.get("accepted", 0),
        refused={
            "limit": counted.get("refused_limit", 0),
            "overload": counted.get("refused_overload", 0),
        },
        accept_errors=listener.accept_errors(),
        handshake_failures=counted.get("handshake_failures", 0),
        timed_out=counted.get("timed_out", 0),
        mail=None if listener.handler.counts is None else listener.handler.counts.copy(),
    )
