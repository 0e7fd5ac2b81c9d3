"""The control of a server with several workers, in the supervisor.

    control socket ──┐                     ┌──> worker 0
                     ├──> SupervisorControl ├──> worker 1     requests to all, answers summed
    a worker's API ──┘                     └──> worker 2

Rules of this file: no I/O and no event loop; coroutines are run by `pending.run`. A worker that
does not answer delays a report once, and no longer than `REPORT_SECONDS`: after that its last known
values are used, marked as such, until it answers. What workers send is checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any

from fastlisten.runtime.change_log import Change, log_change
from fastlisten.runtime.control import (
    MAX_LIMIT,
    Control,
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.reports import ListenerReport, Readiness, ServerReport
from fastlisten.runtime.supervisor.channel import BadMessageError, ChannelError
from fastlisten.runtime.supervisor.control_messages import (
    count_in,
    decode_error,
    encode_error,
    encode_readiness,
    encode_reports,
    encode_server,
    text_in,
)
from fastlisten.runtime.supervisor.pending import Pending, run
from fastlisten.runtime.supervisor.worker_reports import EndedWorkers, KnownWorker, merged
from fastlisten.runtime.supervisor.worker_requests import (
    ANSWER,
    REQUEST,
    Body,
    Send,
    WorkerRequests,
)

__all__ = ["CHANGE_SECONDS", "REPORT_SECONDS", "SupervisorControl"]

#: Seconds that workers have for a report: a monitoring system may ask every few seconds.
REPORT_SECONDS = 1.0

#: Seconds that workers have for a change before the one that requested it is told which has not
#: made it. Longer, because that matters more than the time.
CHANGE_SECONDS = 3.0

#: Seconds until a worker that has not answered is asked again; until then nobody waits for it.
_ASK_AGAIN = 10.0

#: Seconds until the next attempt to tell a worker with a full channel what it has missed.
_REPEAT = 1.0

#: Requests of one worker at a time.
_MAX_REQUESTS = 64

#: The longest text that a worker may give as the one who requested something.
_MAX_BY = 256


class SupervisorControl(Control):
    """Controls all workers.

    Args:
        send: sends a message to a worker; raises a `ChannelError` if that is not possible.
        listeners: returns the ids of the configured listeners, in order.
        server: returns the report on the server, as far as the supervisor knows it.
        drained: called when a listener is to be drained; closes the supervisor's own sockets of it.
        set_limit: sets the limit of a listener for all workers; returns the one before.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        send: Send,
        listeners: Callable[[], Collection[str]],
        server: Callable[[], ServerReport],
        drained: Callable[[str], None],
        set_limit: Callable[[str, int], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._listeners = listeners
        self._server = server
        self._close = drained
        self._set_limit = set_limit
        self._clock = clock
        self._requests = WorkerRequests(send, clock)
        self._workers: dict[int, KnownWorker] = {}
        self._ended = EndedWorkers()
        self._gathering: Pending[list[ListenerReport]] | None = None
        self._paused: set[str] = set()
        self._drained: set[str] = set()
        self._repeat: float | None = None

    # -- workers come and go

    def add(self, key: int, number: int) -> None:
        """Include a worker, when it is told to accept.

        Args:
            key: identifies the process; never used again.
            number: within the server.
        """
        self._workers[key] = KnownWorker(number)

    def retire(self, key: int) -> None:
        """Give a worker that drains no more requests; its counters still count."""
        if key in self._workers:
            self._workers[key].serving = False

    def remove(self, key: int) -> None:
        """Forget a worker that has ended; what it has counted still counts."""
        worker = self._workers.pop(key, None)
        if worker is None:
            return
        self._ended.add(worker, frozenset(self._listeners()))
        self._requests.remove(key)

    def changes(self) -> Body:
        """Return what a new worker has to apply right after it has begun to accept."""
        return {"paused": sorted(self._paused), "drained": sorted(self._drained)}

    # -- an upgrade

    @property
    def busy(self) -> bool:
        """Whether answers of workers, or to workers, are missing."""
        return self._requests.deadline is not None or any(
            one.requests for one in self._workers.values()
        )

    def state(self) -> Body:
        """Return what the new program of an upgrade needs to go on, as a JSON value."""
        return {
            "paused": sorted(self._paused),
            "drained": sorted(self._drained),
            "workers": [
                [key, one.number, one.serving, one.missed] for key, one in self._workers.items()
            ],
            "ended": self._ended.encode(),
            "last-request": self._requests.last,
        }

    def take_over(self, state: Body) -> None:
        """Go on from what `state` has returned in a former program."""
        self._paused, self._drained = set(state["paused"]), set(state["drained"])
        self._requests.last = state["last-request"]
        self._ended.decode(state["ended"])
        for key, number, serving, missed in state["workers"]:
            self._workers[key] = KnownWorker(number, serving=serving, missed=missed)
            if missed:
                self._repeat = self._clock()
        # For the last values of workers that hang or are killed.
        run(self.reports())

    @property
    def drained(self) -> Collection[str]:
        """Ids of the listeners that were drained on request."""
        return self._drained

    def forget(self, listeners: Collection[str]) -> None:
        """Forget listeners that a reload has removed: requests and counters."""
        self._paused.difference_update(listeners)
        self._drained.difference_update(listeners)
        self._ended.forget(listeners)

    # -- messages and time

    def receive(self, key: int, kind: str, body: Body) -> bool:
        """Take a message from a worker; return whether it is one of ours.

        Raises:
            BadMessageError: no worker would send that.
        """
        if kind == REQUEST:
            self._serve(key, body)
        elif kind == ANSWER:
            worker = self._workers.get(key)
            if worker is not None:
                worker.keep(body, self._clock())
                self._requests.receive(key, body)
        else:
            return False
        return True

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if there is nothing to wait for."""
        times = (self._requests.deadline, self._repeat)
        return min((one for one in times if one is not None), default=None)

    def expire(self) -> None:
        """Do what is due."""
        self._requests.expire()
        if self._repeat is not None and self._repeat <= self._clock():
            self._repeat = None
            for key, worker in self._workers.items():
                if worker.missed:
                    self._tell_again(key, worker)

    def _tell_again(self, key: int, worker: KnownWorker) -> None:
        try:
            self._send(key, REQUEST, {"id": 0, "method": "apply", "arguments": self.changes()})
            worker.missed = False
        except ChannelError:
            self._repeat = self._clock() + _REPEAT

    # -- asking

    async def readiness(self) -> Readiness:
        """Return whether clients can be sent to the server."""
        reports = await self.reports()
        missing = tuple((one.id, one.state) for one in reports if not one.accepting)
        return Readiness(bool(reports) and not missing, missing)

    async def server(self) -> ServerReport:
        """Return the report on the server as a whole."""
        report = self._server()
        stale = {*report.stale, *self._stale()}
        return dataclasses.replace(report, stale=tuple(sorted(stale)))

    async def reports(self) -> list[ListenerReport]:
        """Return a report on each listener, in order of id; not all are made at the same moment."""
        if self._gathering is None:
            gathering = run(self._gather({}))
            if gathering.done:
                return gathering.result()
            self._gathering = gathering
            gathering.when_done(lambda: self._forget(gathering))
        return await self._gathering

    async def report(self, id: str) -> ListenerReport:
        """Return the report on one listener."""
        if id in self._listeners():
            for report in await self._gather({"id": id}):
                if report.id == id:
                    return report
            raise NoAnswerError(f'no worker has reported on listener "{id}"')
        raise UnknownListenerError(id)

    async def _gather(self, arguments: Mapping[str, str]) -> list[ListenerReport]:
        """Return the reports of all workers, merged; of one listener if it is given."""
        if not self._workers:
            raise NoAnswerError("no worker is running")
        now = self._clock()
        keys = [
            key
            for key, worker in self._workers.items()
            if worker.late is None or worker.late + _ASK_AGAIN <= now
        ]
        found = await self._requests.ask(keys, "reports", arguments, REPORT_SECONDS)
        for key in (*found.late, *found.lost):
            if key in self._workers:
                self._workers[key].late = now
        ids = (arguments["id"],) if arguments else self._listeners()
        return merged(self._workers.values(), self._ended, ids)

    def _forget(self, gathering: Pending[list[ListenerReport]]) -> None:
        if self._gathering is gathering:
            self._gathering = None

    def _stale(self) -> set[int]:
        return {one.number for one in self._workers.values() if one.late is not None}

    # -- doing

    async def pause(self, id: str, by: str) -> None:
        """Stop a listener from accepting until `resume`."""
        self._require(id)
        if id not in self._drained:
            self._paused.add(id)
        await self._change("pause", "paused", id, by)

    async def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`."""
        self._require(id)
        self._paused.discard(id)
        await self._change("resume", "resumed", id, by)

    async def drain(self, id: str, by: str) -> None:
        """Close a listener; only a restart opens it again."""
        self._require(id)
        self._paused.discard(id)
        if id not in self._drained:
            self._drained.add(id)
            self._close(id)
        await self._change("drain", "drained", id, by)

    async def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start.

        Workers are not asked: it is in memory that they share, and one that reads a request late
        would bring an old limit back.
        """
        self._require(id)
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"a limit must be from 1 to {MAX_LIMIT}, not {limit}")
        if id in self._drained:
            raise ImpossibleError(id, (await self.report(id)).state, "given another limit")
        # As in `_change`.
        self._gathering = None
        before = self._set_limit(id, limit)
        if before != limit:
            log_change("limit", id, by, limit, before)

    def _require(self, id: str) -> None:
        if id not in self._listeners():
            raise UnknownListenerError(id)
        if not any(one.serving for one in self._workers.values()):
            raise NoAnswerError("no worker is running")

    async def _change(self, method: str, change: Change, id: str, by: str) -> None:
        # Reports that were asked for before this must not be the answer to a later request.
        self._gathering = None
        keys = [key for key, one in self._workers.items() if one.serving]
        numbers = {key: self._workers[key].number for key in keys}
        arguments = {"id": id, "by": by}
        found = await self._requests.ask(keys, method, arguments, CHANGE_SECONDS)
        for key in found.lost:
            if key in self._workers:
                self._workers[key].missed = True
                self._repeat = self._clock() + _REPEAT
        failed, changed = _outcome(found.answers.values())
        if changed:
            log_change(change, id, by)
        if failed is not None:
            raise failed
        missing = sorted({numbers[key] for key in (*found.late, *found.lost)})
        if missing:
            raise UnfinishedError(id, change, missing)

    # -- requests of workers

    def _serve(self, key: int, body: Body) -> None:
        """Carry out a request of a worker and send it the answer.

        Raises:
            BadMessageError: it is not a request.
        """
        id, call = count_in(body, "id"), self._call(body)
        worker = self._workers.get(key)
        if worker is None or worker.requests >= _MAX_REQUESTS:
            call.close()
            why = "too many requests at a time" if worker else "the worker does not serve yet"
            self._reply(key, {"id": id, "error": encode_error(NoAnswerError(why))})
            return
        worker.requests += 1
        outcome = run(call)

        def reply() -> None:
            worker.requests -= 1
            try:
                answer: Body = {"id": id, "result": outcome.result()}
            except Exception as error:
                answer = {"id": id, "error": encode_error(error)}
            self._reply(key, answer)

        outcome.when_done(reply)

    def _reply(self, key: int, answer: Body) -> None:
        # A worker that does not read, or has ended in the meantime, gets no answer.
        with contextlib.suppress(ChannelError):
            try:
                self._send(key, ANSWER, answer)
            except ValueError:
                error = encode_error(NoAnswerError("the answer is too long for a message"))
                self._send(key, ANSWER, {"id": answer["id"], "error": error})

    def _call(self, body: Body) -> Coroutine[Any, Any, Body]:
        """Return the call that a request asks for."""
        method, arguments = text_in(body, "method"), body.get("arguments")
        if not isinstance(arguments, dict):
            raise BadMessageError("a request without arguments")
        if method in ("readiness", "server", "reports"):
            return self._read(method)
        id = text_in(arguments, "id")
        if method == "report":
            return self._read(method, id)
        by = text_in(arguments, "by")[:_MAX_BY]
        if method == "set_limit":
            return _empty(self.set_limit(id, count_in(arguments, "limit"), by))
        if method in ("pause", "resume", "drain"):
            change = {"pause": self.pause, "resume": self.resume, "drain": self.drain}
            return _empty(change[method](id, by))
        raise BadMessageError("a request of an unknown kind")

    async def _read(self, method: str, id: str = "") -> Body:
        match method:
            case "readiness":
                return encode_readiness(await self.readiness())
            case "server":
                return encode_server(await self.server())
            case "reports":
                return {"reports": encode_reports(await self.reports())}
            case _:
                return {"reports": encode_reports([await self.report(id)])}


async def _empty(change: Coroutine[Any, Any, None]) -> Body:
    await change
    return {}


def _outcome(answers: Iterable[Body]) -> tuple[Exception | None, bool]:
    """Return the error in the answers to a change, if any, and whether a worker has made it."""
    failed: Exception | None = None
    changed = False
    for answer in answers:
        if "error" in answer:
            failed = failed or decode_error(answer["error"])
        elif isinstance(answer.get("result"), dict):
            changed = changed or "changed" in answer["result"]
    return failed, changed
