"""Limits the number of log records that peers can cause.

Rules of this file: nothing of the package is imported. Records beyond the limit are counted, and
their number is logged later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

__all__ = ["MAX_RECORDS", "WINDOW", "Throttle"]

#: Records of one kind that are logged per `WINDOW`; the rest are only counted. A spammer that
#: guesses addresses causes a hundred a second: at 250 bytes a line 2 GB a day, or 220 MB with this.
MAX_RECORDS = 100

#: Seconds after which counting starts again, and the number of omitted records is logged.
WINDOW = 10.0


class Throttle:
    """Limits the number of records of each kind; belongs to one event loop.

    Args:
        tell: called with a kind and the number of its records that were omitted.
    """

    __slots__ = ("_counts", "_tell", "_timer")

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, kind: str) -> bool:
        """Count a record; return whether it may be written.

        Args:
            kind: from a fixed set, which peers cannot enlarge.
        """
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._timer is None:
            # There is no loop if it was closed with open connections; then counting never restarts.
            with contextlib.suppress(RuntimeError):
                self._timer = asyncio.get_running_loop().call_later(WINDOW, self.close)
        return count <= MAX_RECORDS

    def close(self) -> None:
        """Log what was omitted, and start counting again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        for kind, count in counts.items():
            if count > MAX_RECORDS:
                self._tell(kind, count - MAX_RECORDS)
