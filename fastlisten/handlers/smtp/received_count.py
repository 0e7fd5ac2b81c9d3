"""Counting the Received fields of a header while the message streams in: loop detection.

Rules of this file: octets in, a number out; no limit and no reply. A message that comes in pieces
is counted as if it came in one, and what is kept between pieces is bounded. RFC 5321 6.3: a
message that has been handed on very often goes in circles.
"""

from __future__ import annotations

import re

__all__ = ["ReceivedCount"]

# The obsolete syntax of RFC 5322 4.5 allows blanks before the colon.
_FIELD = re.compile(rb"(?:\A|\r\n)received[ \t]*:", re.IGNORECASE)

#: Octets of an unfinished line that are kept: enough to know "Received" and some blanks by.
_KEPT = 64


class ReceivedCount:
    """The Received fields of one message so far.

    Attributes:
        count: how many.
        over: the header has ended; what is added changes nothing any more.
    """

    __slots__ = ("_rest", "count", "over")

    def __init__(self) -> None:
        self.count = 0
        self.over = False
        self._rest = b""  # the beginning of a line that has not ended yet

    def add(self, data: bytes) -> None:
        """Take the next octets of the message."""
        if self.over:
            return
        if self._rest:
            data = self._rest + data
        # At the beginning of a line here: an empty one ends the header.
        end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n")
        if end >= 0:
            self.over = True
            self.count += len(_FIELD.findall(data, 0, end))
            return
        last = data.rfind(b"\r\n") + 2
        if last >= 2:
            self.count += len(_FIELD.findall(data, 0, last))
        else:
            last = 0
        rest = data[last:]
        if len(rest) > _KEPT:
            # Its CR may be the first half of the line's end.
            rest = rest[:_KEPT] + (b"\r" if rest.endswith(b"\r") else b"")
        self._rest = rest
