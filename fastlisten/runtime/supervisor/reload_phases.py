"""The two phases in which all workers take a new configuration: all prepare, then all commit.

    prepare ──all have prepared──> commit ──all have committed──> done
       │ one cannot, or none has prepared          (one that does not is lost)
       └──> abandon

A worker that ends, or does not answer in time, is lost: the others don't wait for it. Whoever runs
the reload replaces it.

Rules of this file: no I/O. It is given the function that sends a message, the answers and a clock;
`deadline` says when to call `expire`. It does not know what is in the messages.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastlisten.runtime.supervisor.channel import ChannelError, ChannelFullError, NoRoomError
from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.reload_messages import (
    ABANDON,
    COMMIT,
    COMMITTED,
    LOST,
    PREPARED,
    TAKEN,
    Answer,
    Outgoing,
)

__all__ = ["COMMIT_SECONDS", "PREPARE_SECONDS", "ReloadPhases"]

#: Seconds that workers have to prepare: handlers are made and started, and an application may read
#: a lot when it starts. With those for the commit it is less than `fastlisten reload` waits for.
PREPARE_SECONDS = 45.0

#: Seconds that workers have to commit, which is done at once by a worker whose loop turns.
COMMIT_SECONDS = 10.0

#: Seconds until the next attempt to send to a worker whose channel is full.
_AGAIN = 0.05

#: Sends a message to a worker: key, kind, body, descriptors. Raises a `ChannelError` if that fails.
Send = Callable[[int, str, Mapping[str, Any], Sequence[int]], None]


@dataclass(slots=True)
class _Part:
    """One worker's part: what is still to be sent to it, and what it has done."""

    unsent: deque[Outgoing]
    awaits: str = ""
    done: str = ""
    answers: list[Answer] = field(default_factory=list)


class ReloadPhases:
    """One reload of several workers.

    Args:
        id: of the reload, never used again.
        send: sends a message.
        clock: returns seconds that never go back.

    Attributes:
        id: as given.
        lost: keys of workers that have not answered; some may have ended.
        answers: of those that have committed, by key.
    """

    def __init__(self, id: int, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = id
        self._send = send
        self._clock = clock
        self._parts: dict[int, _Part] = {}
        self._ends: float | None = None
        self._again: float | None = None
        self._prepared: Pending[tuple[str, ...]] | None = None
        self._committed: Pending[None] | None = None
        self.lost: set[int] = set()
        self.answers: dict[int, Answer] = {}

    # -- the steps

    def prepare(self, messages: Mapping[int, Sequence[Outgoing]]) -> Pending[tuple[str, ...]]:
        """Let workers prepare.

        Args:
            messages: for each worker, by key, in order; the last one is answered when it has
                prepared.

        Returns:
            Why the configuration cannot be used, as the first worker says that cannot; empty if at
            least one has prepared and none has failed.
        """
        outcome: Pending[tuple[str, ...]] = Pending()
        self._prepared = outcome
        self._parts = {key: _Part(deque(each)) for key, each in messages.items()}
        self._ends = self._clock() + PREPARE_SECONDS
        self._go_on()
        return outcome

    def commit(self) -> Pending[None]:
        """Let the workers that have prepared use the new configuration."""
        outcome: Pending[None] = Pending()
        self._committed = outcome
        self._ends = self._clock() + COMMIT_SECONDS
        for part in self._parts.values():
            part.unsent.append((COMMIT, {"id": self.id}, ()))
        self._go_on()
        return outcome

    def abandon(self) -> Collection[int]:
        """Let the workers forget it; return the keys of those that cannot be told."""
        silent = []
        for key in {*self._parts, *self.lost}:
            try:
                self._send(key, ABANDON, {"id": self.id}, ())
            except ChannelFullError:
                silent.append(key)
            except ChannelError:
                continue  # it has ended
        self._parts.clear()
        self._ends = self._again = None
        return silent

    def cancel(self, error: Exception) -> None:
        """The server stops: let `prepare` raise this, or `commit` end as if the rest were lost."""
        if self._prepared is not None and not self._prepared.done:
            self._prepared.fail(error)
        elif self._committed is not None and not self._committed.done:
            self._lose(self._waited_for())

    # -- what happens meanwhile

    def receive(self, key: int, body: Mapping[str, Any]) -> None:
        """Take an answer of a worker.

        Raises:
            BadMessageError: no worker would send that.
        """
        answer = Answer.decode(body)
        part = self._parts.get(key)
        if (
            part is not None
            and answer.id == LOST
            and answer.problems
            and part.awaits in (TAKEN, PREPARED)
        ):
            self._fail(key, *answer.problems)
            return
        if part is None or answer.id != self.id or answer.step != part.awaits:
            return  # to a message of a reload that was abandoned
        part.awaits = ""
        if answer.problems:
            self._fail(key, *answer.problems)
            return
        part.done = answer.step
        if answer.step == COMMITTED:
            self.answers[key] = answer
        self._go_on()

    def remove(self, key: int) -> None:
        """Wait no longer for a worker that has ended, or drains."""
        if key in self._parts:
            self._lose([key])

    def give_up(self, keys: Iterable[int]) -> None:
        """Wait no longer for workers that hang."""
        self._lose(key for key in keys if key in self._waited_for())

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if there is nothing to wait for."""
        times = [one for one in (self._ends, self._again) if one is not None]
        return min(times, default=None)

    def expire(self) -> None:
        """Do what is due."""
        now = self._clock()
        if self._again is not None and self._again <= now:
            self._go_on()
        if self._ends is not None and self._ends <= now:
            self._lose(self._waited_for())

    # -- helpers

    def _waited_for(self) -> list[int]:
        wanted = PREPARED if self._committed is None else COMMITTED
        return [key for key, part in self._parts.items() if part.done != wanted]

    def _fail(self, key: int, *problems: str) -> None:
        """A worker cannot prepare, or has not committed."""
        if self._prepared is not None and not self._prepared.done:
            self._ends = None
            self._prepared.resolve(problems)
        else:
            self._lose([key])

    def _lose(self, keys: Iterable[int]) -> None:
        for key in tuple(keys):
            if self._parts.pop(key, None) is not None:
                self.lost.add(key)
        self._go_on()

    def _go_on(self) -> None:
        """Send what can be sent, and end the phase if nobody is waited for."""
        self._again = None
        for key, part in list(self._parts.items()):
            if key in self._parts and part.unsent and not part.awaits:
                self._send_next(key, part)
        if self._waited_for():
            return
        if self._prepared is not None and not self._prepared.done:
            self._ends = None
            if self._parts:
                self._prepared.resolve(())
            else:
                self._prepared.resolve(("no worker has taken the new configuration",))
        elif self._committed is not None and not self._committed.done:
            self._ends = None
            self._committed.resolve(None)

    def _send_next(self, key: int, part: _Part) -> None:
        kind, body, fds = part.unsent[0]
        try:
            self._send(key, kind, body, fds)
        except NoRoomError as error:
            self._fail(key, f"the workers cannot be given the new configuration: {error}")
        except ChannelFullError:
            self._again = self._clock() + _AGAIN
        except ChannelError:
            del self._parts[key]
            self.lost.add(key)
        except (OSError, ValueError) as error:
            # The kernel does not pass on so many descriptors, or the message is too long.
            self._fail(key, f"the workers cannot be given the new configuration: {error}")
        else:
            part.unsent.popleft()
            last = COMMITTED if kind == COMMIT else PREPARED
            part.awaits = TAKEN if part.unsent else last
