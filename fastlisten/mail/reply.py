"""Replies: what a protocol tells its client about a message or a recipient.

Rules of this file: values, not octets. SMTP and LMTP write a reply as it is; other protocols take
from it what they have a place for.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Reply"]


class Reply(NamedTuple):
    """One reply.

    Attributes:
        code: three digits (RFC 5321 4.2).
        status: the enhanced status code (RFC 3463).
        text: one line of printable ASCII.
    """

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        """Return the reply on one line."""
        return f"{self.code} {self.status} {self.text}"
