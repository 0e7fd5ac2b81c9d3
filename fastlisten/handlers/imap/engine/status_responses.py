"""Writes status responses: OK, NO, BAD, BYE, PREAUTH, tagged or not, and + (RFC 3501 7.1, 7.5).

Rules of this file: whatever the text is, it makes one line. Response codes are made by
response_codes.
"""

from __future__ import annotations

import binascii
import re

__all__ = ["GO_AHEAD", "IDLING", "challenge", "status"]

#: What is said to a literal that waits, and to IDLE.
GO_AHEAD = b"+ OK\r\n"
IDLING = b"+ idling\r\n"

_UNPRINTABLE = re.compile(r"[^ -~]")


def status(tag: bytes, condition: bytes, text: str, code: bytes = b"") -> bytes:
    """Return a status response.

    Args:
        tag: of the command; ``*`` for none.
        condition: OK, NO, BAD, BYE or PREAUTH.
        text: for people. What cannot be written becomes a question mark.
        code: the response code without its brackets, empty for none.
    """
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text)
    if code:
        return b"%b %b [%b] %b\r\n" % (tag, condition, code, text.encode("ascii") or b"-")
    if not text or text[0] == "[":  # which would begin a response code
        text = f"- {text}"
    return b"%b %b %b\r\n" % (tag, condition, text.encode("ascii"))


def challenge(data: bytes) -> bytes:
    """Return a challenge of AUTHENTICATE."""
    return b"+ %b\r\n" % binascii.b2a_base64(data, newline=False)
