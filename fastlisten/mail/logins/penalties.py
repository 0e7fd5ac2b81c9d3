"""Penalties: who fails to log in, waits before trying again. Counted per client address.

Rules of this file: no passwords and no accounts; who enters and who failed. One table for a
process, used from any loop and thread; workers do not share it. What holds for one address:

    fewer than FREE failures, those counted in that may come of attempts under way: no waiting
    from then on one attempt at a time, 1, 2, 4, ... seconds (at most LONGEST) after the last
    failure; the others queue
    FORGOTTEN seconds after the last failure all is forgotten; a success forgets nothing

so that parallel connections gain nothing, and an own account to log in with in between neither.
The time is counted from the last failure, as Dovecot's auth-penalty does it: who has waited
already does not wait again. As there, the same wrong password again (a telephone that has not
heard of the new one) is held against others behind the same address less than another one is.

An IPv6 address counts as its /64, which is what one customer has. A client on a Unix socket has
no address and no penalty: it is a program of this host that speaks for others, and knows them.
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

#: Failures of one address before it has to wait, and attempts that are made at the same time.
FREE = 3

#: Seconds that the longest penalty lasts: 120 guesses an hour.
LONGEST = 30.0

#: Seconds after which the last failure, and all before it, is forgotten.
FORGOTTEN = 600.0

#: The failures that make for LONGEST: 2 ** 5 seconds are more.
_MOST = FREE + 5

#: Where repetitions of the same mistake stop to count: 4 seconds.
_MOST_BY_REPETITION = FREE + 2

#: Different mistakes of an address that are remembered, to know repetitions.
_REMEMBERED = 8

#: Attempts of one address that may wait for their turn. Each has a connection, so that a company
#: behind one address needs room; a queue of this length that fails takes a quarter of an hour.
WAITING = 32

#: Addresses that are remembered: about 5 MiB. When there are more, the one whose last failure is
#: the longest ago is forgotten.
SIZE = 10_000


class LoginsBusyError(FastlistenError):
    """Too many logins at the moment, or none can be verified; the client may try again later."""


class _Turn:
    """An attempt that waits."""

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
        self.queue: deque[_Turn] = deque()
        self.mistakes: deque[bytes] = deque(maxlen=_REMEMBERED)

    @property
    def idle(self) -> bool:
        return not (self.inside or self.queue)

    def pause(self, now: float) -> float | None:
        """Return how long the next attempt waits; None until another has ended."""
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
    """The table.

    Its length is the number of addresses in it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an empty one.

        Args:
            clock: returns seconds that never go back, as long as a loop's timers count them.
        """
        self._clock = clock
        self._lock = threading.Lock()
        #: In the order of their last failure, or of their making.
        self._records: dict[str, _Record] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    async def enter(self, address: str) -> str:
        """Wait until an attempt may be made.

        Args:
            address: the client's, empty where it has none.

        Returns:
            What is given back to `leave`, which must follow.

        Raises:
            LoginsBusyError: too many from there are waiting already.
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
            turn = _Turn()
            record.queue.append(turn)
        try:
            while True:
                turn.event.clear()
                with self._lock:
                    first = record.queue[0] is turn
                    pause = record.pause(self._clock()) if first else None
                    if pause == 0:
                        record.inside += 1
                        return source
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await turn.event.wait()
        finally:
            with self._lock:
                record.queue.remove(turn)
                self._next(source, record)

    def suspicion(self, source: str) -> int:
        """Return how many failures speak against an attempt that has entered.

        Others from the same address that are under way may fail, too, and count.

        Args:
            source: what `enter` gave.
        """
        if not source:
            return 0
        with self._lock:
            record = self._records[source]
            return record.failures + record.inside - 1

    def leave(self, source: str, mistake: bytes | None) -> None:
        """End an attempt.

        Args:
            source: what `enter` gave.
            mistake: None unless the login failed; then what is equal for equal mistakes.
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
        """Let the next one look whether it may enter; forget a record that says nothing."""
        if record.queue:
            record.queue[0].wake()
        elif not (record.inside or record.failures):
            del self._records[source]

    def _record(self, source: str) -> _Record:
        """Return the record of an address, and make room for a new one."""
        record = self._records.get(source)
        if record is None:
            if len(self._records) >= SIZE:
                # Those at work stay; there are at most as many as connections.
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
