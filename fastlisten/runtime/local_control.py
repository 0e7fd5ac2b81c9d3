"""The control of the worker in this process.

Rules of this file: it is called on the worker's loop and never blocks. It checks requests and
reports; worker and listener do the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastlisten.runtime.change_log import log_change
from fastlisten.runtime.control import MAX_LIMIT, Control, ImpossibleError, UnknownListenerError
from fastlisten.runtime.listener import Listener, State
from fastlisten.runtime.reports import Counters, ListenerReport, Readiness, ServerReport
from fastlisten.runtime.worker import Worker

__all__ = ["LocalControl"]

#: How many listeners to report before yielding to the loop: about a millisecond's work.
_BATCH = 100


class LocalControl(Control):
    """Controls the worker of this process, which need not have started yet.

    Args:
        worker: as a rule the server's only one.
        changed: called with each change and its values; by default it is logged.
    """

    def __init__(self, worker: Worker, changed: Callable[..., None] = log_change) -> None:
        self._worker = worker
        self._changed = changed

    # -- asking

    async def readiness(self) -> Readiness:
        """Return whether clients can be sent to the server."""
        listeners = self._worker.listeners
        missing = tuple((one.name, one.state) for one in listeners if not one.accepting)
        return Readiness(bool(listeners) and not missing, missing)

    async def server(self) -> ServerReport:
        """Return the report on the server as a whole."""
        plan = self._worker.plan
        return ServerReport(
            {self._worker.number: 0}, plan.reload_succeeded, plan.certificates.expiry()
        )

    async def reports(self) -> list[ListenerReport]:
        """Return a report on each listener, in order of id; not all are made at the same moment."""
        found = []
        for count, listener in enumerate(self._worker.listeners, 1):
            found.append(self._report(listener))
            if count % _BATCH == 0:
                await asyncio.sleep(0)
        return found

    async def report(self, id: str) -> ListenerReport:
        """Return the report on one listener."""
        return self._report(self._listener(id))

    # -- doing

    async def pause(self, id: str, by: str) -> None:
        """Stop a listener from accepting until `resume`."""
        listener = self._open_listener(id, "paused")
        if listener.state is not State.PAUSED:
            listener.pause()
            self._changed("paused", id, by)

    async def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`."""
        listener = self._open_listener(id, "resumed")
        if listener.state is State.PAUSED:
            listener.resume()
            self._changed("resumed", id, by)

    async def drain(self, id: str, by: str) -> None:
        """Close a listener; only a restart opens it again."""
        listener = self._listener(id)
        if listener.state in (State.DRAINING, State.CLOSED):
            return
        self._changed("drained", id, by)
        self._worker.drain_listener(listener)

    async def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start."""
        listener = self._open_listener(id, "given another limit")
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"a limit must be from 1 to {MAX_LIMIT}, not {limit}")
        places = listener.places
        assert places is not None
        before, places.limit = places.limit, limit
        if before != limit:
            self._changed("limit", id, by, limit, before)

    # -- helpers

    def _report(self, listener: Listener) -> ListenerReport:
        places = listener.places
        return ListenerReport(
            id=listener.name,
            protocol=listener.handler.settings.protocol,
            state=listener.state,
            accepting=listener.accepting,
            addresses=listener.addresses,
            held=places.count if places is not None else 0,
            limit=places.limit if places is not None else 0,
            limit_action="wait" if listener.waits else "refuse",
            workers={self._worker.number: Counters.of(listener)},
        )

    def _listener(self, id: str) -> Listener:
        listener = self._worker.listener(id)
        if listener is None:
            raise UnknownListenerError(id)
        return listener

    def _open_listener(self, id: str, wanted: str) -> Listener:
        listener = self._listener(id)
        if listener.state in (State.DRAINING, State.CLOSED):
            raise ImpossibleError(id, listener.state, wanted)
        return listener
