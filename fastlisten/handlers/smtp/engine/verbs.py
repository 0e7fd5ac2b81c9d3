"""The verbs of command lines: which are commands, and which may appear in logs.

Rules of this file: names only.
"""

from __future__ import annotations

__all__ = ["HTTP_VERBS", "KNOWN", "NOT_HERE", "verb_shown"]

#: Commands of RFC 5321 and its extensions that exist, but not here (502 instead of 500).
NOT_HERE = frozenset(b"AUTH ETRN EXPN SAML SEND SOML STARTTLS TURN XCLIENT XFORWARD".split())

#: First words of HTTP requests: a browser was led here to have its request's body executed as
#: commands. Nothing good follows.
HTTP_VERBS = frozenset(b"CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE".split())

_KNOWN = (
    NOT_HERE
    | HTTP_VERBS
    | frozenset(b"BDAT DATA EHLO HELO HELP LHLO MAIL NOOP QUIT RCPT RSET VRFY".split())
)

#: Each command's name by itself: a session that keeps this one keeps no copy of its own.
KNOWN = {verb: verb for verb in _KNOWN}


def verb_shown(verb: bytes) -> str:
    """Return a command's name for a log, UNKNOWN for what is none.

    A client whose AUTH was refused may send its password where a command is expected: what is not
    known to be a command is not shown.
    """
    return verb.decode() if verb in _KNOWN else "UNKNOWN"
