"""By which reason negative answers are counted.

Rules of this file: a fixed set of words, because they are labels of metrics. A client that may try
again has a reason of `_LATER`; those count as 4xx, all others as 5xx, as with smtp.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import response_codes as codes

__all__ = ["REASONS", "reason_of"]

_LATER = {
    codes.INUSE: "unavailable",
    codes.LIMIT: "limit",
    codes.SERVERBUG: "local-error",
    codes.UNAVAILABLE: "unavailable",
}

_NEVER = {
    codes.ALREADYEXISTS: "mailbox-exists",
    codes.AUTHENTICATIONFAILED: "login-failed",
    codes.AUTHORIZATIONFAILED: "login-failed",
    codes.NONEXISTENT: "no-such-mailbox",
    codes.OVERQUOTA: "over-quota",
    codes.PRIVACYREQUIRED: "tls-required",
    codes.TOOBIG: "too-large",
    codes.TRYCREATE: "no-such-mailbox",
}

#: All of them.
REASONS = frozenset({*_LATER.values(), *_NEVER.values(), "other", "syntax"})


def reason_of(code: bytes, *, bad: bool) -> tuple[bytes, str]:
    """Return the class, ``4`` or ``5``, and the reason of a negative answer.

    Args:
        code: its response code, empty if none.
        bad: it is BAD, not NO.
    """
    if code in _LATER:
        return b"4", _LATER[code]
    return b"5", _NEVER.get(code, "syntax" if bad else "other")
