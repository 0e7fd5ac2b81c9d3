"""The reasons by which negative replies are counted.

Rules of this file: names only. They are values of labels in the metrics.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.verbs import HTTP_VERBS

__all__ = ["REASONS", "reason_of"]

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
