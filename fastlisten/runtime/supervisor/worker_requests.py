"""Requests from the supervisor to its workers: sent to several, answered by a deadline or not.

    supervisor    control-request {"id": 7, "method": "pause", "arguments": {...}}    ->    worker
    supervisor    <-    control-answer {"id": 7, "result": {...}} or {"id": 7, "error": {...}}

Workers send requests to the supervisor in the same form.

Rules of this file: no I/O. It is given the function that sends a message, the messages that arrive
and a clock; `deadline` says when to call `expire`. It does not know what requests mean. A worker
may have been taken over: an answer that nobody waits for changes nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.runtime.supervisor.channel import ChannelError
from fastlisten.runtime.supervisor.pending import Pending

__all__ = ["ANSWER", "REQUEST", "Answers", "Body", "Send", "WorkerRequests"]

#: The kinds of messages.
REQUEST = "control-request"
ANSWER = "control-answer"

Body = dict[str, Any]

#: Sends a message to a worker: its key, kind and body. Raises a `ChannelError` if that fails.
Send = Callable[[int, str, Body], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a request.

    Attributes:
        answers: the bodies of the answers, by the worker's key.
        late: keys of the workers that have not answered in time, but may still.
        lost: keys of the workers that have not received the request, because they do not read.
    """

    answers: Mapping[int, Body]
    late: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(slots=True)
class _Request:
    deadline: float
    outcome: Pending[Answers]
    waiting: set[int]
    answers: dict[int, Body] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)


class WorkerRequests:
    """The requests that are under way.

    Args:
        send: sends a message.
        clock: returns seconds that never go back.

    Attributes:
        last: the id of the last request.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._requests: dict[int, _Request] = {}
        self.last = 0

    def ask(
        self, keys: Iterable[int], method: str, arguments: Mapping[str, Any], timeout: float
    ) -> Pending[Answers]:
        """Send a request to workers.

        Args:
            keys: of the workers.
            method: what they are to do.
            arguments: can be encoded as JSON.
            timeout: how many seconds they have to answer.
        """
        self.last += 1
        body: Body = {"id": self.last, "method": method, "arguments": dict(arguments)}
        outcome: Pending[Answers] = Pending()
        request = _Request(self._clock() + timeout, outcome, set())
        for key in keys:
            try:
                self._send(key, REQUEST, body)
            except ChannelError:
                request.lost.append(key)
            else:
                request.waiting.add(key)
        self._requests[self.last] = request
        self._finish_if_complete(self.last)
        return outcome

    def receive(self, key: int, body: Body) -> bool:
        """Take an answer of a worker; return whether it was waited for."""
        id = body.get("id")
        request = self._requests.get(id) if type(id) is int else None
        if request is None or key not in request.waiting:
            return False
        request.waiting.discard(key)
        request.answers[key] = body
        self._finish_if_complete(body["id"])
        return True

    def remove(self, key: int) -> None:
        """Wait no longer for a worker that has ended; it counts neither as late nor as lost."""
        for id, request in list(self._requests.items()):
            request.waiting.discard(key)
            self._finish_if_complete(id)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if no request is under way."""
        return min((one.deadline for one in self._requests.values()), default=None)

    def expire(self) -> None:
        """Finish the requests whose time is over."""
        now = self._clock()
        for id, request in list(self._requests.items()):
            if request.deadline <= now:
                self._finish(id)

    def _finish_if_complete(self, id: int) -> None:
        request = self._requests.get(id)
        if request is not None and not request.waiting:
            self._finish(id)

    def _finish(self, id: int) -> None:
        request = self._requests.pop(id, None)
        # What is continued below may have finished others in the meantime.
        if request is not None:
            late = tuple(sorted(request.waiting))
            request.outcome.resolve(Answers(request.answers, late, tuple(request.lost)))
