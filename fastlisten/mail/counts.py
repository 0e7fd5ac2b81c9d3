"""What is counted of a listener's mail.

Rules of this file: numbers, no I/O. Names of reasons and results are values of labels in the
metrics (management/mail_metrics.py): whatever a client says, there are no others.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable

__all__ = ["DURATIONS", "Counts"]

#: Upper bounds of the histogram of deliveries, in seconds: a disk that syncs at once, a busy one,
#: a relay, a relay that lets its clients wait.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Counts:
    """Counters since the start; changed on one loop.

    Attributes:
        messages: by result: accepted, rejected (5xx), deferred (4xx); those that were cut off, and
            transactions without a message, do not count. In LMTP a message is accepted if one
            recipient has it.
        octets: of the accepted ones.
        rejections: negative replies by class and reason: ``("5xx", "unknown-recipient")``.
        logins: by result: succeeded, failed, deferred.
        relay: answers of the relay by step and result: ``("recipient", "accepted")``.
        ends: of sessions, by reason.
        durations: deliveries by bucket of `DURATIONS`, those beyond the last one at the end.
        seconds: that all deliveries have taken.
    """

    __slots__ = (
        "durations",
        "ends",
        "logins",
        "messages",
        "octets",
        "rejections",
        "relay",
        "seconds",
    )

    def __init__(self) -> None:
        self.messages: dict[str, int] = {}
        self.octets = 0
        self.rejections: dict[tuple[str, str], int] = {}
        self.logins: dict[str, int] = {}
        self.relay: dict[tuple[str, str], int] = {}
        self.ends: dict[str, int] = {}
        self.durations = [0] * (len(DURATIONS) + 1)
        self.seconds = 0.0

    def copy(self) -> Counts:
        """Return what is counted now."""
        other = Counts()
        other.messages = self.messages.copy()
        other.octets = self.octets
        other.rejections = self.rejections.copy()
        other.logins = self.logins.copy()
        other.relay = self.relay.copy()
        other.ends = self.ends.copy()
        other.durations = self.durations.copy()
        other.seconds = self.seconds
        return other

    @classmethod
    def sum(cls, parts: Iterable[Counts]) -> Counts:
        """Return what several workers have counted."""
        total = cls()
        for one in parts:
            for name in ("messages", "rejections", "logins", "relay", "ends"):
                counted = Counter(getattr(total, name))
                counted.update(getattr(one, name))
                setattr(total, name, dict(counted))
            total.octets += one.octets
            total.durations = [a + b for a, b in zip(total.durations, one.durations, strict=True)]
            total.seconds += one.seconds
        return total

    def message(self, result: str, octets: int = 0) -> None:
        """Count a message."""
        self.messages[result] = self.messages.get(result, 0) + 1
        self.octets += octets

    def rejection(self, reply: bytes, reason: str, times: int = 1) -> None:
        """Count a negative reply that was given once or more often."""
        key = ("4xx" if reply[:1] == b"4" else "5xx", reason)
        self.rejections[key] = self.rejections.get(key, 0) + times

    def login(self, result: str) -> None:
        """Count a login."""
        self.logins[result] = self.logins.get(result, 0) + 1

    def relayed(self, step: str, reply: bytes = b"") -> None:
        """Count what the relay has answered.

        Args:
            step: recipient or message.
            reply: our reply to the client; empty if the relay has accepted it.
        """
        result = {b"": "accepted", b"5": "rejected"}.get(reply[:1], "deferred")
        self.relay[step, result] = self.relay.get((step, result), 0) + 1

    def ended(self, reason: str) -> None:
        """Count the end of a session."""
        self.ends[reason] = self.ends.get(reason, 0) + 1

    def delivery(self, seconds: float) -> None:
        """Count the time from the end of a message to its positive reply."""
        self.durations[bisect.bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds
