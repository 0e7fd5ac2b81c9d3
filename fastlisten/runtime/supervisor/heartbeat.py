"""Whether the event loops of the workers turn: each says so in the arena, the supervisor looks.

Rules of this file: a heartbeat costs no message and wakes nobody. Clocks of different processes are
not compared: what counts is that a worker's value changes while the supervisor looks on. A
supervisor that was itself stopped has not looked on, and begins anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from fastlisten._arena import Arena

__all__ = ["HUNG_AFTER", "INTERVAL", "Heartbeat", "HungWorkers"]

#: Seconds between two heartbeats of a worker, and between two looks of the supervisor.
INTERVAL: Final = 1.0

#: Seconds without a heartbeat until a worker is said to be hung. A request that an application
#: handles on the loop, or a disk that is slow, may take that long once; balance and limits do not
#: depend on it.
HUNG_AFTER: Final = 5.0


class Heartbeat:
    """Shows in the arena that this process's loop turns, until `stop`.

    Args:
        arena: of all workers.
        member: the number of this process in it.
    """

    def __init__(self, arena: Arena, member: int) -> None:
        self._arena = arena
        self._member = member
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._beat()

    def _beat(self) -> None:
        self._arena.beat(self._member)
        self._next = self._loop.call_later(INTERVAL, self._beat)

    def stop(self) -> None:
        """Show nothing more. Calling it again does nothing."""
        if self._next is not None:
            self._next.cancel()
            self._next = None


class HungWorkers:
    """Finds the workers whose loops do not turn.

    Args:
        clock: returns seconds that never go back.

    Attributes:
        hung: process ids of those that hang, and how many seconds they had been silent when they
            were found.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._seen: dict[int, tuple[int, float]] = {}
        self.hung: dict[int, float] = {}

    @property
    def deadline(self) -> float:
        """When to call `look`, by the clock."""
        return self._looked + INTERVAL

    def look(self, heartbeats: Mapping[int, int]) -> tuple[list[int], list[int]]:
        """Compare heartbeats with those of the last time.

        Args:
            heartbeats: of all running workers, by process id; from `Arena.heartbeats`.

        Returns:
            The process ids of workers that hang since this look, and of those that no longer do.
            Workers that have ended are in neither.
        """
        now = self._clock()
        # If this comes late, the workers may have been stopped along with the supervisor.
        pause = now - self._looked
        lost = pause if pause > 2 * INTERVAL else 0.0
        self._looked = now
        seen, found, back = self._seen, [], []
        self._seen = {}
        for pid, value in heartbeats.items():
            before, since = seen.get(pid, (None, now))
            since = now if value != before else since + lost
            self._seen[pid] = (value, since)
            if now - since > HUNG_AFTER:
                if pid not in self.hung:
                    self.hung[pid] = now - since
                    found.append(pid)
            elif pid in self.hung:
                del self.hung[pid]
                back.append(pid)
        for pid in self.hung.keys() - heartbeats.keys():
            del self.hung[pid]
        return found, back
