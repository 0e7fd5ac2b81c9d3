"""How long a crashed worker waits until it is replaced.

Rules of this file: time is given, nothing waits here.
"""

from __future__ import annotations

__all__ = ["BackOff"]

#: Seconds after the second crash; the first one is a single event and costs no wait.
_FIRST = 0.5

#: Seconds at most: a server whose cause of crashes has been removed serves again soon.
_LONGEST = 30.0

#: Seconds of serving after which a crash counts as the first one again.
_STABLE = 60.0


class BackOff:
    """The waits of one worker's number: 0, 0.5, 1, 2, ... 30 seconds.

    Attributes:
        crashes: how many crashes count; zero at the start.
    """

    def __init__(self, crashes: int = 0) -> None:
        self.crashes = crashes

    def crashed(self, served: float) -> float:
        """Note a crash; return how many seconds to wait.

        Args:
            served: how many seconds the worker had served; 0 if it had not begun.
        """
        if served >= _STABLE:
            self.crashes = 0
        self.crashes += 1
        if self.crashes == 1:
            return 0.0
        # The exponent is bounded, because floats are.
        return min(_LONGEST, _FIRST * 2.0 ** min(self.crashes - 2, 16))
