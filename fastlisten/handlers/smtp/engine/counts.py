"""What is counted of a listener's mail, and which kind a negative reply is.

Rules of this file: numbers and names, no I/O, so that the engine can count. The names are values of
labels in the metrics (management/metrics.py): whatever a client says, there are no others.
"""

from __future__ import annotations

import bisect

from fastlisten.handlers.smtp.engine.verbs import HTTP_VERBS

__all__ = ["DURATIONS", "REASONS", "Counts", "reason_of"]

#: Upper bounds of the histogram of deliveries, in seconds: a disk that syncs at once, a busy one,
#: a relay, a relay that lets its clients wait.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: By code and enhanced status.
_EXACT = {
    b"421 4.7.0": "too-many-errors",
    b"452 4.5.3": "too-many-recipients",
    b"550 5.1.1": "unknown-recipient",
    b"550 5.1.2": "unknown-recipient",
    b"550 5.6.0": "bare-line-break",
    b"552 5.3.4": "too-large",
    b"554 5.4.6": "loop",
    b"554 5.5.0": "early-talker",
}

#: By code, where the status says no more.
_BY_CODE = {
    b"451": "local-error",
    b"452": "local-error",
    b"500": "syntax",
    b"501": "syntax",
    b"502": "syntax",
    b"503": "sequence",
    b"504": "syntax",
    b"530": "authentication-required",
    b"535": "login-failed",
    b"538": "authentication-required",
    b"552": "too-large",
    b"555": "syntax",
}

#: The codes of what is refused for reasons of policy.
_REFUSED = frozenset({b"550", b"551", b"553", b"554"})

#: What 5.7.x means then, by command.
_POLICY = {b"RCPT": "relay-denied", b"MAIL": "sender-denied"}

#: What 454 means, by command.
_NOT_NOW = {b"AUTH": "login-deferred", b"STARTTLS": "tls-unavailable"}


#: All that `reason_of` gives, and what is found before there is an engine.
REASONS = frozenset(
    {
        *_EXACT.values(),
        *_BY_CODE.values(),
        *_POLICY.values(),
        *_NOT_NOW.values(),
        "deferred",
        "http",
        "other",
        "pregreet",
    }
)


def reason_of(reply: bytes, verb: bytes) -> str:
    """Return which kind a negative reply is: one of some twenty words.

    Args:
        reply: complete.
        verb: the command that it answers, in upper case; empty if there is none.
    """
    if verb in HTTP_VERBS:
        return "http"
    exact = _EXACT.get(reply[:9])
    if exact is not None:
        return exact
    code = reply[:3]
    if code in _REFUSED and reply[4:7] == b"5.7" and verb in _POLICY:
        return _POLICY[verb]
    if code == b"454":
        return _NOT_NOW.get(verb, "deferred")
    by_code = _BY_CODE.get(code)
    if by_code is not None:
        return by_code
    return "deferred" if code[:1] == b"4" else "other"


class Counts:
    """What is counted since the start; changed on one loop.

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
            reply: what the client hears of it; empty if the relay has taken it.
        """
        result = {b"": "accepted", b"5": "rejected"}.get(reply[:1], "deferred")
        self.relay[step, result] = self.relay.get((step, result), 0) + 1

    def ended(self, reason: str) -> None:
        """Count the end of a session."""
        self.ends[reason] = self.ends.get(reason, 0) + 1

    def delivery(self, seconds: float) -> None:
        """Count how long it took from the end of a message to the reply that it was taken."""
        self.durations[bisect.bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds
