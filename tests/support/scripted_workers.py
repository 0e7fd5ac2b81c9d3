"""A supervisor's control with workers that answer from a script, without processes and time.

Rules of this file: messages go through JSON, as in a channel. A worker answers at once, unless it
is `hung`: then messages wait in `unread` until `wake`. The clock stands still until `pass_time`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastlisten.mail.counts import Counts
from fastlisten.runtime.control import UnknownListenerError
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Counters, ListenerReport, ServerReport
from fastlisten.runtime.supervisor.channel import ChannelFullError
from fastlisten.runtime.supervisor.control_messages import encode_error, encode_reports
from fastlisten.runtime.supervisor.pending import Pending, run
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.worker_requests import ANSWER, Body

__all__ = ["ScriptedWorker", "Supervisor"]


class ScriptedWorker:
    """A worker as the supervisor sees it.

    Attributes:
        requests: the methods and arguments that it has received, reports left out.
        states: of its listeners.
        accepted: what each listener has accepted.
        hung: it answers nothing.
        full: its channel takes no messages.
        error: its answer to every request for a change.
    """

    def __init__(self, supervisor: Supervisor, key: int, number: int) -> None:
        self.supervisor = supervisor
        self.key = key
        self.number = number
        self.requests: list[tuple[str, Body]] = []
        self.asked = 0
        self.states = {"a": State.LISTENING, "b": State.LISTENING}
        self.accepted = 1
        self.hung = False
        self.full = False
        self.error: Exception | None = None
        self.unread: list[Body] = []

    def take(self, body: Body) -> None:
        """Receive a request."""
        if body["method"] == "reports":
            self.asked += 1
        if self.hung:
            self.unread.append(body)
        else:
            self.answer(body)

    def wake(self) -> None:
        """Answer everything that has been waiting."""
        self.hung = False
        waiting, self.unread = self.unread, []
        for body in waiting:
            self.answer(body)
        self.supervisor.deliver()

    def answer(self, body: Body) -> None:
        try:
            answer: Body = {"result": self.carry_out(body["method"], body["arguments"])}
        except Exception as error:
            answer = {"error": encode_error(error)}
        self.supervisor.under_way.append((self.key, {"id": body["id"], **answer}))

    def carry_out(self, method: str, arguments: Body) -> Body:
        if method == "reports":
            id = arguments.get("id")
            ids = self.states if id is None else [id]
            if id is not None and id not in self.states:
                raise UnknownListenerError(id)
            return {"reports": encode_reports(self.report(id) for id in ids), "all": id is None}
        self.requests.append((method, arguments))
        if self.error is not None:
            raise self.error
        after = {"pause": State.PAUSED, "resume": State.LISTENING, "drain": State.DRAINING}
        if method in after:
            before_state, self.states[arguments["id"]] = (
                self.states[arguments["id"]],
                after[method],
            )
            return {"changed": True} if before_state is not after[method] else {}
        return {}

    def report(self, id: str) -> ListenerReport:
        mail = Counts()
        mail.message("accepted", self.accepted)
        counters = Counters(2, self.accepted, {"limit": 1, "overload": 0}, {24: 1}, 3, 4, mail)
        return ListenerReport(
            id,
            "smtp",
            self.states[id],
            self.states[id] in (State.LISTENING, State.FULL),
            (f"{id}:25",),
            5,
            self.supervisor.limit,
            "refuse",
            {self.number: counters},
        )


class Supervisor:
    """The control, its workers by key, and the time.

    Attributes:
        now: the clock.
        control: under test.
        workers: those that run, and those that have ended.
        answers: what workers got in answer to their own requests, with their keys.
        under_way: answers of workers that the supervisor has not received yet.
        drained: the listeners whose sockets the supervisor has closed.
    """

    def __init__(self, workers: int = 2) -> None:
        self.now = 1000.0
        self.limit = 100
        self.listeners = ["a", "b"]
        self.server = ServerReport({0: 0, 1: 3}, True, {"a": {"": 1e9}})
        self.workers: dict[int, ScriptedWorker] = {}
        self.answers: list[tuple[int, Body]] = []
        self.under_way: list[tuple[int, Body]] = []
        self.drained: list[str] = []
        self.control = SupervisorControl(
            self._send,
            lambda: self.listeners,
            lambda: self.server,
            self.drained.append,
            self._set_limit,
            lambda: self.now,
        )
        for number in range(workers):
            self.start(number)

    def start(self, number: int) -> ScriptedWorker:
        """Add a worker, whose key is not its number."""
        key = 100 + len(self.workers)
        worker = self.workers[key] = ScriptedWorker(self, key, number)
        self.control.add(key, number)
        return worker

    def worker(self, number: int) -> ScriptedWorker:
        """Return the first worker of a number."""
        return next(one for one in self.workers.values() if one.number == number)

    def hear(self, key: int, kind: str, body: Any) -> bool:
        """Receive a message from a worker."""
        return self.control.receive(key, kind, json.loads(json.dumps(body)))

    def deliver(self) -> None:
        """Receive what the workers have answered."""
        while self.under_way:
            key, body = self.under_way.pop(0)
            self.hear(key, ANSWER, body)

    def pass_time(self, seconds: float) -> None:
        """Let time go by as a poll loop does: `expire` is called when it is due, and not before."""
        end = self.now + seconds
        while (due := self.control.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.control.expire()
            self.deliver()
        self.now = end

    def result(self, call: Callable[[], Coroutine[Any, Any, Any]], after: float = 0) -> Any:
        """Run a coroutine that must be done at once, or after some seconds and not before."""
        outcome = run(call())
        self.deliver()
        if after:
            self.pass_time(after - 0.01)
            assert not outcome.done, "done too early"
            self.pass_time(0.02)
        return outcome.result()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Pending[Any]:
        """Run a coroutine that waits for something."""
        outcome = run(coroutine)
        self.deliver()
        assert not outcome.done
        return outcome

    def _set_limit(self, listener: str, limit: int) -> int:
        before, self.limit = self.limit, limit
        return before

    def _send(self, key: int, kind: str, body: Body) -> None:
        worker = self.workers[key]
        if worker.full:
            raise ChannelFullError("full")
        passed = json.loads(json.dumps(body))
        if kind == ANSWER:
            self.answers.append((key, passed))
        else:
            worker.take(passed)
