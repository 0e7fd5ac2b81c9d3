"""Clients that hold connections, whatever the servers are: their shares, and their answers.

Rules of this file: what `hold.py` and `hold_workers.py` both do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.machine import field
from benchmarks.process import Load

__all__ = ["meminfo", "ping", "say", "shares_of"]


def say(words: str) -> None:
    """Tell the user how far it is."""
    print(words, file=sys.stderr, flush=True)


def meminfo(name: str) -> int:
    """Return a line of /proc/meminfo in bytes."""
    return int(field("/proc/meminfo", name).split()[0]) * 1024


def shares_of(connections: int, clients: int) -> list[int]:
    """Return how many connections each client opens; the first ones may have one more."""
    return [connections // clients + (index < connections % clients) for index in range(clients)]


def ping(loads: Sequence[Load], within: float) -> tuple[int, float]:
    """Have each connection answer once; return how many have, and after how many seconds.

    Raises:
        MeasurementError: one has not answered within this many seconds.
    """
    begun = time.monotonic()
    for load in loads:
        load.tell("ping")
    answered = sum(load.event("ping", within)["operations"] for load in loads)
    seconds = time.monotonic() - begun
    say(f"answered {answered:,} in {seconds:.1f} s")
    return answered, seconds
