"""Penalties: after failed logins, the client's address has to wait before it may try again.

Rules of this file: no passwords and no accounts, only who tries and who failed. `PenaltyTable`
decides and does no I/O; `Penalties` waits on event loops, with a table for one process, from any
loop and thread. With several workers the supervisor has the table. It has the failures of names
too (failed_names.py), but they make nobody wait: the name is the victim's. For each address:

    fewer than FREE failures, counting attempts in progress as failures: nobody waits
    after that: one attempt at a time, 1, 2, 4, ... seconds (at most LONGEST) after the last failure
    FORGOTTEN seconds after the last failure: the address starts afresh; a success changes nothing

Parallel connections don't help an attacker, and neither does logging in to an account of their own
between guesses. As in Dovecot's auth-penalty, the delay runs from the last failure, so a client
that has waited already does not wait twice, and repeating the same wrong password (a phone that
does not know the new one) costs others behind the same address less than guessing does.

An IPv6 address counts as its /64, which is what one customer has. A client on a Unix socket has no
address and no penalty: it is a program of this host, such as a webmail, that speaks for many users.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from fastlisten.addresses import parse_address
from fastlisten.errors import FastlistenError
from fastlisten.mail.logins.failed_names import FORGOTTEN, FailedNames
from fastlisten.mail.loop_calls import call_on

__all__ = [
    "Entered",
    "LoginPenalties",
    "LoginsBusyError",
    "Penalties",
    "PenaltyTable",
    "WaitingAttempt",
    "source_of",
]

#: Failures of one address before it has to wait, and attempts that it may make at the same time.
FREE = 3

#: The longest penalty, in seconds: it allows 120 guesses an hour.
LONGEST = 30.0

#: The number of failures that leads to LONGEST: 2 ** 5 seconds are more than that.
_MOST = FREE + 5

#: The number of failures beyond which repeating the same mistake does not count: 4 seconds.
_MOST_BY_REPETITION = FREE + 2

#: Mistakes that are remembered for each address, to recognize repetitions.
_REMEMBERED = 8

#: Attempts of one address that may wait for their turn. A company behind one address needs some
#: room; if all of these fail, it takes a quarter of an hour.
WAITING = 32

#: Addresses that are remembered: about 5 MiB. Beyond that, the one that failed the longest ago is
#: forgotten.
SIZE = 10_000


class LoginsBusyError(FastlistenError):
    """There are too many logins now, or none can be verified; the client may try again later."""


class WaitingAttempt(Protocol):
    """An attempt that waits for its turn, as the table knows it."""

    def wake(self) -> None:
        """Make it call `PenaltyTable.pause` again, soon but not now."""


class Entered(Protocol):
    """An attempt that may be made now."""

    def failures(self) -> int:
        """Return how many failures speak against it: those of its address and of its name.

        Other attempts in progress from the same address count as failures.
        """

    def leave(self, mistake: bytes | None) -> None:
        """End it, from any thread.

        Args:
            mistake: None unless the login failed; then a value that is equal for equal mistakes.
        """


class LoginPenalties(Protocol):
    """What logins need: a way to wait for their turn."""

    @property
    def key(self) -> bytes:
        """A secret for digests of names and mistakes, the same for all who use the same table."""

    async def enter(self, address: str, name: str) -> Entered:
        """Wait until an attempt may be made.

        Args:
            address: the client's; empty if it has none.
            name: a digest of the name, as text.

        Returns:
            The attempt; its `leave` must follow.

        Raises:
            LoginsBusyError: too many attempts from this address are waiting already.
        """


class _Record:
    """What is known of one address."""

    __slots__ = ("failures", "inside", "last", "mistakes", "queue")

    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0
        self.inside = 0
        self.queue: deque[WaitingAttempt] = deque()
        self.mistakes: deque[bytes] = deque(maxlen=_REMEMBERED)

    @property
    def idle(self) -> bool:
        return not (self.inside or self.queue)

    def pause(self, now: float) -> float | None:
        """Return the seconds that the next attempt has to wait; None to wait for another to end."""
        if now - self.last >= FORGOTTEN:
            self.failures = 0
            self.mistakes.clear()
        if self.failures + self.inside < FREE:
            return 0.0
        if self.inside:
            return None
        return max(0.0, self.last + min(LONGEST, 2.0 ** (self.failures - FREE)) - now)

    def fail(self, now: float, mistake: bytes) -> None:
        """Count a failure."""
        most = _MOST_BY_REPETITION if mistake in self.mistakes else _MOST
        self.failures = max(self.failures, min(self.failures + 1, most))
        self.last = now
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)


class PenaltyTable:
    """The table of addresses, and of names. It is for one thread.

    Attributes:
        records: what is known of each address, in the order of their last failure, or of when they
            were added.
        names: how often each name failed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Make an empty table.

        Args:
            clock: returns seconds that never go back.
        """
        self._clock = clock
        self.records: dict[str, _Record] = {}
        self.names = FailedNames(clock)

    def restore(self, source: str, failures: int, last: float, mistakes: Iterable[bytes]) -> None:
        """Add an address that another table has known."""
        record = self.records[source] = _Record()
        record.failures, record.last = failures, last
        record.mistakes.extend(mistakes)

    def enter(self, source: str) -> bool:
        """Let an attempt enter, unless it has to wait.

        Args:
            source: see `source_of`; not empty.
        """
        record = self._record(source)
        if record.queue or record.pause(self._clock()) != 0:
            return False
        record.inside += 1
        return True

    def wait(self, source: str, attempt: WaitingAttempt) -> None:
        """Put an attempt that could not enter at the end of the queue. Call `pause` next.

        Raises:
            LoginsBusyError: too many attempts from this address are waiting already.
        """
        record = self.records[source]
        if len(record.queue) >= WAITING:
            raise LoginsBusyError(f"{WAITING} logins from {source} are waiting")
        record.queue.append(attempt)

    def pause(self, source: str, attempt: WaitingAttempt) -> float | None:
        """Let a waiting attempt enter if it is its turn.

        Returns:
            The seconds after which to call again; 0 if it has entered; None to wait for `wake`.
        """
        record = self.records[source]
        if record.queue[0] is not attempt:
            return None
        pause = record.pause(self._clock())
        if pause == 0:
            record.inside += 1
            record.queue.popleft()
            self._next(source, record)
        return pause

    def withdraw(self, source: str, attempt: WaitingAttempt) -> None:
        """Remove an attempt that waits."""
        record = self.records[source]
        record.queue.remove(attempt)
        self._next(source, record)

    def failures(self, source: str, name: str) -> int:
        """Return how many failures speak against an attempt that has entered."""
        if not source:
            return self.names.failures(name)
        record = self.records[source]
        return record.failures + record.inside - 1 + self.names.failures(name)

    def leave(self, source: str, name: str, mistake: bytes | None) -> None:
        """End an attempt that has entered, or needed not to; see `Entered.leave`."""
        if mistake is not None:
            self.names.add(name)
        if not source:
            return
        record = self.records[source]
        record.inside -= 1
        if mistake is not None:
            record.fail(self._clock(), mistake)
            self.records[source] = self.records.pop(source)  # the last one now
        self._next(source, record)

    def _next(self, source: str, record: _Record) -> None:
        """Let the next attempt look whether it may enter; remove a record that says nothing."""
        if record.queue:
            record.queue[0].wake()
        elif not (record.inside or record.failures):
            del self.records[source]

    def _record(self, source: str) -> _Record:
        """Return the record of an address; make room for it if it is new."""
        record = self.records.get(source)
        if record is None:
            if len(self.records) >= SIZE:
                # Records in use stay; there are no more of them than connections.
                oldest = next((key for key, it in self.records.items() if it.idle), None)
                if oldest is not None:
                    del self.records[oldest]
            record = self.records[source] = _Record()
        return record


class _Waiter:
    """An attempt that waits on an event loop."""

    __slots__ = ("event", "loop")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def wake(self) -> None:
        call_on(self.loop, self.event.set)


class _Entered:
    """An attempt that has entered a table of this process."""

    __slots__ = ("_name", "_penalties", "_source")

    def __init__(self, penalties: Penalties, source: str, name: str) -> None:
        self._penalties = penalties
        self._source = source
        self._name = name

    def failures(self) -> int:
        with self._penalties.lock:
            return self._penalties.table.failures(self._source, self._name)

    def leave(self, mistake: bytes | None) -> None:
        with self._penalties.lock:
            self._penalties.table.leave(self._source, self._name, mistake)


class Penalties:
    """The penalties of one process.

    Its length is the number of addresses in its table.

    Attributes:
        key: a secret for digests of names and mistakes.
        lock: to hold while the table is used.
        table: the table.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an empty table.

        Args:
            clock: returns seconds that never go back, at the pace of a loop's timers.
        """
        self.key = secrets.token_bytes(32)
        self.lock = threading.Lock()
        self.table = PenaltyTable(clock)

    def __len__(self) -> int:
        with self.lock:
            return len(self.table.records)

    async def enter(self, address: str, name: str) -> Entered:
        """Wait until an attempt may be made; see `LoginPenalties.enter`."""
        source = source_of(address)
        if not source:
            return _Entered(self, source, name)
        with self.lock:
            if self.table.enter(source):
                return _Entered(self, source, name)
            waiter = _Waiter()
            self.table.wait(source, waiter)
        entered = False
        try:
            while True:
                waiter.event.clear()
                with self.lock:
                    pause = self.table.pause(source, waiter)
                    entered = pause == 0
                if entered:
                    return _Entered(self, source, name)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiter.event.wait()
        finally:
            if not entered:
                with self.lock:
                    self.table.withdraw(source, waiter)


def source_of(address: str) -> str:
    """Return what is counted for an address: itself, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    number = parse_address(address)
    if not isinstance(number, ipaddress.IPv6Address):
        return address if number is None else str(number)
    return str(ipaddress.IPv6Network((int(number) >> 64 << 64, 64)))
