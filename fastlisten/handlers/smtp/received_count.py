"""Counts the Received fields of a message as it arrives, to detect mail loops (RFC 5321 6.3).

Rules of this file: octets in, a number out; the limit and the reply are elsewhere. It does not
matter into which pieces the message is cut, and what is kept between pieces is bounded.
"""

from __future__ import annotations

import re

__all__ = ["ReceivedCount"]

# The obsolete syntax of RFC 5322 4.5 allows white space before the colon.
_FIELD = re.compile(rb"\r\nreceived[ \t]*:")

#: Octets kept of an unfinished line: enough to recognize "Received" and some white space.
_KEPT = 64


class ReceivedCount:
    """The number of Received fields in one message so far.

    Attributes:
        count: the number.
        over: the header has ended; whatever is added now is ignored.
    """

    __slots__ = ("_rest", "count", "over")

    def __init__(self) -> None:
        self.count = 0
        self.over = False
        self._rest = b""  # the beginning of an unfinished line

    def add(self, data: bytes) -> None:
        """Take the next octets of the message."""
        if self.over:
            return
        if self._rest:
            data = self._rest + data
        # The data begins at the start of a line, and an empty line ends the header.
        end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n")
        if end >= 0:
            self.over = True
            self.count += _fields_in(data[:end])
            return
        last = data.rfind(b"\r\n") + 2
        if last >= 2:
            self.count += _fields_in(data[:last])
        else:
            last = 0
        rest = data[last:]
        if len(rest) > _KEPT:
            # A final CR may be the first half of the line's CRLF.
            rest = rest[:_KEPT] + (b"\r" if rest.endswith(b"\r") else b"")
        self._rest = rest


def _fields_in(lines: bytes) -> int:
    """Return how many Received fields some lines of a header are."""
    # In lower case and with one literal beginning: an expression that ignores case, or has a
    # choice at its beginning, takes ten times as long.
    return len(_FIELD.findall(b"\r\n" + lines.lower()))
