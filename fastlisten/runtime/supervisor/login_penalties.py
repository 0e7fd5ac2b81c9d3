"""The penalties of logins for all workers, in the supervisor.

    worker      login-enter   {"id": 7, "source": "192.0.2.1", "name": "77a1..."}
                                                                 may it be tried? also: still there?
    supervisor  login-answer  {"id": 7, "state": "enter", "failures": 0}   now
                              {"id": 7, "state": "wait", ...}              another answer follows
                              {"id": 7, "state": "busy", ...}              no: too many wait
    worker      login-leave   {"id": 7, "mistake": "5f0c..."}    it failed; null: it has not failed,
                                                                 or no longer waits

Every login-enter is answered at once, so that a worker notices when the supervisor does not react.
An attempt that waits asks again every `ASK_AGAIN` seconds, or it is forgotten. One that ends with
its worker, or lasts longer than `LONGEST_ATTEMPT`, counts as a failure: otherwise killing or
stopping workers would give guesses for free, and a hung one would keep an address waiting.

Rules of this file: no I/O. It is given the function that sends a message, the messages that arrive
and a clock; `deadline` says when to call `expire`. What workers send is checked: a worker that has
been taken over can invent failures, but not undo any, nor make the table grow without end.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from fastlisten.mail.logins.penalties import LoginsBusyError, PenaltyTable
from fastlisten.runtime.supervisor.channel import BadMessageError, ChannelError
from fastlisten.runtime.supervisor.control_messages import count_in, text_in
from fastlisten.runtime.supervisor.worker_requests import Body, Send

__all__ = [
    "ASK_AGAIN",
    "BUSY",
    "LOGIN_ANSWER",
    "LOGIN_ENTER",
    "LOGIN_LEAVE",
    "LONGEST_ATTEMPT",
    "MAX_ATTEMPTS",
    "NOW",
    "WAIT",
    "SharedPenalties",
]

#: The kinds of messages.
LOGIN_ENTER: Final = "login-enter"
LOGIN_ANSWER: Final = "login-answer"
LOGIN_LEAVE: Final = "login-leave"

#: The states in an answer.
NOW: Final = "enter"
WAIT: Final = "wait"
BUSY: Final = "busy"

#: Seconds after which an attempt that still waits asks again.
ASK_AGAIN: Final = 10.0

#: Seconds after which one that has not asked again is not let in: its worker hangs, and each of its
#: attempts would keep the others from the same address waiting for LONGEST_ATTEMPT.
_UNHEARD = 3 * ASK_AGAIN

#: Attempts of one worker at a time, waiting or not; a worker with more uses its own table for them.
#: As many as addresses are remembered: about 5 MiB for each worker that is attacked.
MAX_ATTEMPTS: Final = 10_000

#: Seconds after which an attempt that has entered counts as failed. A full queue of a worker takes
#: a quarter of a minute.
LONGEST_ATTEMPT: Final = 60.0

#: The longest source: an IPv6 network has 43 characters, an address with a zone may have 61.
_LONGEST_SOURCE = 64

#: The longest name or mistake: a digest of 32 octets.
_LONGEST_DIGEST = 64


class _Attempt:
    """An attempt of a worker.

    Attributes:
        heard: when its worker asked last.
        number: in the order of arrival.
        until: when it counts as failed, once it has entered; None while it waits.
    """

    __slots__ = ("_woken", "heard", "id", "key", "name", "number", "source", "until")

    def __init__(
        self,
        key: int,
        id: int,
        origin: tuple[str, str],
        now: float,
        number: int,
        woken: deque[_Attempt],
    ) -> None:
        self.heard = now
        self.number = number
        self.key = key
        self.id = id
        self.source, self.name = origin
        self.until: float | None = None
        self._woken = woken

    def wake(self) -> None:
        self._woken.append(self)


class SharedPenalties:
    """The table of all workers, and the attempts that are under way.

    Args:
        send: sends a message to a worker.
        clock: returns seconds that never go back.

    Attributes:
        table: the table.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self.table = PenaltyTable(clock)
        self._send = send
        self._clock = clock
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._of_worker: Counter[int] = Counter()
        #: Those that have entered, in the order of `until`.
        self._entered: dict[_Attempt, None] = {}
        #: When to look at those again that wait for a time; also some that no longer do.
        self._due: list[tuple[float, int, _Attempt]] = []
        self._numbers = itertools.count()
        #: Those to be looked at now.
        self._woken: deque[_Attempt] = deque()

    def __len__(self) -> int:
        return len(self._attempts)

    # -- messages, ends and time

    def receive(self, key: int, kind: str, body: Body) -> bool:
        """Take a message of a worker; return whether it is one of ours.

        Raises:
            BadMessageError: no worker would send that.
        """
        if kind == LOGIN_ENTER:
            origin = text_in(body, "source"), _digest(body.get("name"))
            self._enter(key, count_in(body, "id"), origin)
        elif kind == LOGIN_LEAVE:
            mistake = body.get("mistake")
            digest = None if mistake is None else _digest(mistake).encode()
            self._leave(key, count_in(body, "id"), digest)
        else:
            return False
        self._look()
        return True

    def remove(self, key: int) -> None:
        """End the attempts of a worker that has ended; those that had entered have failed."""
        if self._of_worker[key]:
            for attempt in [one for one in self._attempts.values() if one.key == key]:
                self._end(attempt, _no_mistake(attempt))
            self._look()
        del self._of_worker[key]

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if there is nothing to wait for."""
        times = [self._due[0][0]] if self._due else []
        first = next(iter(self._entered), None)
        if first is not None and first.until is not None:
            times.append(first.until)
        return min(times, default=None)

    def expire(self) -> None:
        """Do what is due."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            self._woken.append(heapq.heappop(self._due)[2])
        late = itertools.takewhile(lambda one: (one.until or 0.0) <= now, self._entered)
        for attempt in list(late):
            self._end(attempt, _no_mistake(attempt))
        self._look()

    # -- an upgrade of the program

    def state(self) -> Body:
        """Return everything, as a JSON value; times are by the clock, which goes on."""
        attempts = sorted(self._attempts.values(), key=lambda one: one.number)
        return {
            "addresses": [
                [source, one.failures, one.last, [mistake.decode() for mistake in one.mistakes]]
                for source, one in self.table.records.items()
            ],
            "names": [[name, *record] for name, record in self.table.names.records.items()],
            "attempts": [
                [one.key, one.id, one.source, one.name, one.heard, one.until] for one in attempts
            ],
        }

    def take_over(self, state: Body) -> None:
        """Go on from what `state` has returned in the former program."""
        for source, failures, last, mistakes in state["addresses"]:
            self.table.restore(source, failures, last, [one.encode() for one in mistakes])
        for name, count, last in state["names"]:
            self.table.names.records[name] = (count, last)
        attempts = []
        for key, id, source, name, heard, until in state["attempts"]:
            attempt = _Attempt(key, id, (source, name), heard, next(self._numbers), self._woken)
            attempt.until = until
            attempts.append(attempt)
            self._add(attempt)
            if until is None:
                self.table.records[source].queue.append(attempt)
                attempt.wake()
            else:
                self.table.records[source].inside += 1
        inside = [one for one in attempts if one.until is not None]
        self._entered = dict.fromkeys(sorted(inside, key=lambda one: one.until or 0.0))
        self._look()

    # -- one attempt

    def _enter(self, key: int, id: int, origin: tuple[str, str]) -> None:
        source = origin[0]
        known = self._attempts.get((key, id))
        if known is not None:  # asked again: the answer may have been lost, or it still waits
            known.heard = self._clock()
            self._answer(known, WAIT if known.until is None else NOW)
            return
        if not 0 < len(source) <= _LONGEST_SOURCE:
            raise BadMessageError("a login from something that is no address")
        if self._of_worker[key] >= MAX_ATTEMPTS:
            raise BadMessageError("too many logins at a time")
        attempt = _Attempt(key, id, origin, self._clock(), next(self._numbers), self._woken)
        if self.table.enter(source):
            self._add(attempt)
            self._let_in(attempt)
            return
        try:
            self.table.wait(source, attempt)
        except LoginsBusyError:
            self._answer(attempt, BUSY)
            return
        self._add(attempt)
        self._answer(attempt, WAIT)
        attempt.wake()

    def _leave(self, key: int, id: int, mistake: bytes | None) -> None:
        attempt = self._attempts.get((key, id))
        # One that has lasted too long has ended already.
        if attempt is not None:
            self._end(attempt, mistake)

    def _add(self, attempt: _Attempt) -> None:
        self._attempts[attempt.key, attempt.id] = attempt
        self._of_worker[attempt.key] += 1

    def _let_in(self, attempt: _Attempt) -> None:
        attempt.until = self._clock() + LONGEST_ATTEMPT
        self._entered[attempt] = None
        self._answer(attempt, NOW)

    def _end(self, attempt: _Attempt, mistake: bytes | None) -> None:
        del self._attempts[attempt.key, attempt.id]
        self._of_worker[attempt.key] -= 1
        if attempt.until is None:
            self.table.withdraw(attempt.source, attempt)
        else:
            del self._entered[attempt]
            self.table.leave(attempt.source, attempt.name, mistake)

    def _look(self) -> None:
        """Let those enter whose turn it is."""
        while self._woken:
            attempt = self._woken.popleft()
            waits = self._attempts.get((attempt.key, attempt.id)) is attempt
            if not waits or attempt.until is not None:
                continue
            if self._clock() - attempt.heard > _UNHEARD:
                self._end(attempt, None)
                continue
            pause = self.table.pause(attempt.source, attempt)
            if pause == 0:
                self._let_in(attempt)
            elif pause is not None:
                due = self._clock() + pause
                heapq.heappush(self._due, (due, next(self._numbers), attempt))
        if len(self._due) > 2 * len(self._attempts) + 100:
            self._forget_due()

    def _forget_due(self) -> None:
        """Drop what no longer waits: a worker could let the list grow with attempts it gives up."""
        latest: dict[_Attempt, tuple[float, int, _Attempt]] = {}
        for one in self._due:
            attempt = one[2]
            waits = self._attempts.get((attempt.key, attempt.id)) is attempt
            if waits and attempt.until is None and one > latest.get(attempt, (0.0, 0, attempt)):
                latest[attempt] = one
        self._due = list(latest.values())
        heapq.heapify(self._due)

    def _answer(self, attempt: _Attempt, state: str) -> None:
        failures = self.table.failures(attempt.source, attempt.name) if state == NOW else 0
        body: Body = {"id": attempt.id, "state": state, "failures": failures}
        try:
            self._send(attempt.key, LOGIN_ANSWER, body)
        except ChannelError:
            # It has ended, or does not read: then it asks again, or `expire` ends the attempt.
            return


def _digest(value: Any) -> str:
    """Return the digest of a name or a mistake in a message.

    Raises:
        BadMessageError: it is none.
    """
    if not isinstance(value, str) or not value.isascii() or len(value) > _LONGEST_DIGEST:
        raise BadMessageError("a name or a mistake that is not a digest")
    return value


def _no_mistake(attempt: _Attempt) -> bytes:
    """Return a mistake that is unlike all others, for an attempt whose end is not known."""
    return b"%d/%d" % (attempt.key, attempt.id)
