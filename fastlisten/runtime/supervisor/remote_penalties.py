"""The penalties of logins for all workers, in a worker: attempts ask the supervisor.

    enter ──> login-enter ──> "enter" ─────────────────> verify ──> login-leave
                         ├──> "wait" ── ... "enter" ──┘
                         ├──> "busy": LoginsBusyError
                         └──> no answer: the worker's own table, for this attempt and, for a while,
                              for all others

Rules of this file: it is given the function that sends a message, and the answers; nothing here
reads the channel. The supervisor is trusted. It may be stopped, though, or busy, and then people
can still log in. May be used from any loop and thread, as `Penalties`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from fastlisten.mail.logins.penalties import Entered, LoginsBusyError, Penalties, source_of
from fastlisten.mail.loop_calls import call_on
from fastlisten.runtime.supervisor.channel import ChannelError
from fastlisten.runtime.supervisor.login_penalties import (
    ASK_AGAIN,
    BUSY,
    LOGIN_ENTER,
    LOGIN_LEAVE,
    MAX_ATTEMPTS,
    NOW,
    WAIT,
)
from fastlisten.runtime.supervisor.remote_control import SendUp
from fastlisten.runtime.supervisor.worker_requests import Body

__all__ = ["ANSWER_SECONDS", "SILENCE", "RemotePenalties"]

#: Seconds that the supervisor has to answer. It does so in less than a millisecond unless it is
#: stopped, or has no processor.
ANSWER_SECONDS = 2.0

#: Seconds for which nothing is asked after an answer has not come, unless one comes.
SILENCE = 10.0


class _Attempt:
    """An attempt that the supervisor has been asked about.

    Attributes:
        state: as answered last; empty before.
        answers: how many there have been.
    """

    __slots__ = ("_event", "_failures", "_loop", "_penalties", "answers", "id", "state")

    def __init__(self, penalties: RemotePenalties, id: int) -> None:
        self.id = id
        self.state = ""
        self.answers = 0
        self._failures = 0
        self._penalties = penalties
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def answer(self, state: str, failures: int) -> None:
        """Take an answer, from any thread."""
        self.state, self._failures = state, failures
        self.answers += 1
        call_on(self._loop, self._event.set)

    async def wait(self, seconds: float, condition: Callable[[], bool]) -> bool:
        """Wait for a condition that an answer may fulfil; return whether it holds."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            return condition()
        return True

    def failures(self) -> int:
        return self._failures

    def leave(self, mistake: bytes | None) -> None:
        self._penalties.end(self.id, mistake)


class RemotePenalties:
    """The penalties of all workers.

    Args:
        send: sends a message to the supervisor, from any thread.
        key: a secret for digests of names and mistakes, the same in all workers.
        clock: returns seconds that never go back, at the pace of a loop's timers.

    Attributes:
        key: as given.
        own: for attempts about which the supervisor cannot be asked.
    """

    def __init__(
        self, send: SendUp, key: bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.key = key
        self.own = Penalties(clock)
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._attempts: dict[int, _Attempt] = {}
        #: Ends that could not be sent yet, because the supervisor does not read.
        self._unsent: deque[Body] = deque()
        self._silent_until: float | None = None

    def receive(self, body: Body) -> None:
        """Take the body of a message of the kind ``login-answer``."""
        self._silent_until = None
        with self._lock:
            self._send_ends()
            attempt = self._attempts.get(body["id"])
        # One that has been given up in the meantime has said so.
        if attempt is not None:
            attempt.answer(body["state"], body["failures"])

    async def enter(self, address: str, name: str) -> Entered:
        """Wait until an attempt may be made; see `LoginPenalties.enter`."""
        source = source_of(address)
        if source and self._can_ask():
            with self._lock:
                attempt = _Attempt(self, next(self._ids))
                self._attempts[attempt.id] = attempt
            entered = False
            try:
                entered = await self._ask(attempt, source, name)
            finally:
                if not entered:
                    self.end(attempt.id, None)
            if entered:
                return attempt
        return await self.own.enter(address, name)

    def end(self, id: int, mistake: bytes | None) -> None:
        """Tell the supervisor that an attempt has ended, or is given up; from any thread."""
        with self._lock:
            if self._attempts.pop(id, None) is not None:
                digest = None if mistake is None else mistake.hex()
                self._unsent.append({"id": id, "mistake": digest})
                self._send_ends()

    def _can_ask(self) -> bool:
        if self._silent_until is not None and self._clock() < self._silent_until:
            return False
        with self._lock:
            self._send_ends()
            return len(self._attempts) + len(self._unsent) < MAX_ATTEMPTS

    async def _ask(self, attempt: _Attempt, source: str, name: str) -> bool:
        """Wait until an attempt may be made; return False if the supervisor does not say.

        Raises:
            LoginsBusyError: too many attempts from this address are waiting already.
        """
        while True:
            before = attempt.answers
            try:
                self._send(LOGIN_ENTER, {"id": attempt.id, "source": source, "name": name})
            except ChannelError:
                return False
            if not await attempt.wait(ANSWER_SECONDS, lambda: attempt.answers > before):  # noqa: B023
                self._silent_until = self._clock() + SILENCE
                return False
            await attempt.wait(ASK_AGAIN, lambda: attempt.state != WAIT)
            if attempt.state == NOW:
                return True
            if attempt.state == BUSY:
                with self._lock:
                    self._attempts.pop(attempt.id, None)  # the supervisor does not know it
                raise LoginsBusyError(f"too many logins from {source} are waiting")

    def _send_ends(self) -> None:
        """Send the ends that have not been sent, as far as the supervisor reads."""
        while self._unsent:
            try:
                self._send(LOGIN_LEAVE, self._unsent[0])
            except ChannelError:
                return
            self._unsent.popleft()
