"""Penalties: after failed logins, the client's address has to wait before it may try again.

Rules of this file: no passwords and no accounts, only who tries and who failed. There is one table
for a process, used from any loop and thread; workers do not share it. For each address:

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
import threading
import time
from collections import deque
from collections.abc import Callable

from fastlisten.addresses import parse_address
from fastlisten.errors import FastlistenError
from fastlisten.mail.loop_calls import call_on

__all__ = ["LoginsBusyError", "Penalties"]

#: Failures of one address before it has to wait, and attempts that it may make at the same time.
FREE = 3

#: The longest penalty, in seconds: it allows 120 guesses an hour.
LONGEST = 30.0

#: Seconds after the last failure when all failures are forgotten.
FORGOTTEN = 600.0

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


class _Waiter:
    """An attempt that waits for its turn."""

    __slots__ = ("event", "loop")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def wake(self) -> None:
        call_on(self.loop, self.event.set)


class _Record:
    """What is known of one address."""

    __slots__ = ("failures", "inside", "last", "mistakes", "queue")

    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0
        self.inside = 0
        self.queue: deque[_Waiter] = deque()
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


class Penalties:
    """The table of addresses.

    Its length is the number of addresses in it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an empty table.

        Args:
            clock: returns seconds that never go back, at the pace of a loop's timers.
        """
        self._clock = clock
        self._lock = threading.Lock()
        #: In the order of their last failure, or of when they were added.
        self._records: dict[str, _Record] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    async def enter(self, address: str) -> str:
        """Wait until an attempt may be made.

        Args:
            address: the client's; empty if it has none.

        Returns:
            What to pass to `leave`, which must follow.

        Raises:
            LoginsBusyError: too many attempts from this address are waiting already.
        """
        source = source_of(address)
        if not source:
            return source
        with self._lock:
            record = self._record(source)
            if not record.queue and record.pause(self._clock()) == 0:
                record.inside += 1
                return source
            if len(record.queue) >= WAITING:
                raise LoginsBusyError(f"{WAITING} logins from {source} are waiting")
            waiter = _Waiter()
            record.queue.append(waiter)
        try:
            while True:
                waiter.event.clear()
                with self._lock:
                    first = record.queue[0] is waiter
                    pause = record.pause(self._clock()) if first else None
                    if pause == 0:
                        record.inside += 1
                        return source
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiter.event.wait()
        finally:
            with self._lock:
                record.queue.remove(waiter)
                self._next(source, record)

    def failures(self, source: str) -> int:
        """Return how many failures speak against an attempt that has entered.

        Other attempts in progress from the same address count as failures.

        Args:
            source: what `enter` returned.
        """
        if not source:
            return 0
        with self._lock:
            record = self._records[source]
            return record.failures + record.inside - 1

    def leave(self, source: str, mistake: bytes | None) -> None:
        """End an attempt.

        Args:
            source: what `enter` returned.
            mistake: None unless the login failed; then a value that is equal for equal mistakes.
        """
        if not source:
            return
        with self._lock:
            record = self._records[source]
            record.inside -= 1
            if mistake is not None:
                record.fail(self._clock(), mistake)
                self._records[source] = self._records.pop(source)  # the last one now
            self._next(source, record)

    def _next(self, source: str, record: _Record) -> None:
        """Let the next attempt look whether it may enter; remove a record that says nothing."""
        if record.queue:
            record.queue[0].wake()
        elif not (record.inside or record.failures):
            del self._records[source]

    def _record(self, source: str) -> _Record:
        """Return the record of an address; make room for it if it is new."""
        record = self._records.get(source)
        if record is None:
            if len(self._records) >= SIZE:
                # Records in use stay; there are no more of them than connections.
                oldest = next((key for key, it in self._records.items() if it.idle), None)
                if oldest is not None:
                    del self._records[oldest]
            record = self._records[source] = _Record()
        return record


def source_of(address: str) -> str:
    """Return what is counted for an address: itself, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    number = parse_address(address)
    if not isinstance(number, ipaddress.IPv6Address):
        return address if number is None else str(number)
    return str(ipaddress.IPv6Network((int(number) >> 64 << 64, 64)))
