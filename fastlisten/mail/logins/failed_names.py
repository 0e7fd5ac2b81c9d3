"""How often each name failed to log in, wherever from.

Rules of this file: names are digests, and any name counts, whether an account has it or not; a
success does not reset the count. Otherwise names that exist would behave differently from others.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["FORGOTTEN", "FailedNames"]

#: Seconds after the last failure, of an address or of a name, when all its failures are forgotten.
FORGOTTEN = 600.0

#: Names that are kept: about 2 MiB. The one that failed the longest ago is dropped first.
SIZE = 10_000


class FailedNames:
    """The failures of names. It is for one thread.

    Attributes:
        records: how often a name failed, and when last, by digest; in the order of these times.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Make an empty table.

        Args:
            clock: returns seconds that never go back.
        """
        self._clock = clock
        self.records: dict[str, tuple[int, float]] = {}

    def failures(self, name: str) -> int:
        """Return how often a name failed recently."""
        count, last = self.records.get(name, (0, 0.0))
        return count if self._clock() - last < FORGOTTEN else 0

    def add(self, name: str) -> None:
        """Count a failure of a name."""
        now = self._clock()
        count, last = self.records.pop(name, (0, now))
        self.records[name] = (count + 1 if now - last < FORGOTTEN else 1, now)
        if len(self.records) > SIZE:
            del self.records[next(iter(self.records))]
