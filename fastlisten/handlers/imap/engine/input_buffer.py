"""Finds where lines end in the input of an IMAP client, and hands out octets that are counted.

Rules of this file: octets in, lines and pieces of literals out; no commands. The result does not
depend on how the input is split, and no more than the longest line is held back.

Only CRLF ends a command (RFC 3501 2.2). A line that a bare LF ends is refused at once, and so is
each further one up to the next CRLF: a client whose user's text holds an LF must not smuggle in a
command. A bare CR or a NUL stays in the line, and no rule of the grammar matches it there.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine.refusal import Refused

__all__ = ["InputBuffer"]

#: Octets of one line that are dropped after it has been found too long; then the session ends. A
#: client whose list of messages is too long gets an answer; one that never ends its line does not
#: keep the server reading.
SKIP_LIMIT = 1024 * 1024

#: Octets that are kept of the beginning of a refused line: more than the longest tag.
HEAD = 256

BARE_LF = "Line ended by a bare LF; lines must end with CR LF"

_CR = 13


class InputBuffer:
    """The part of the stream that has been received and not used up yet.

    Attributes:
        skipping: inside a line that has been refused.
        endless: more than `SKIP_LIMIT` octets of such a line have been dropped.
        head: the first octets of the line that was refused last, for its tag.
    """

    __slots__ = (
        "_buffer", "_dropped", "_position", "_searched", "_skipped", "endless", "head", "skipping"
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0  # of the first octet of the buffer that has not been used up
        self._searched = 0  # up to here there is no LF
        self._skipped = 0
        self._dropped = b""  # the beginning of the line that is being skipped
        self.skipping = False
        self.endless = False
        self.head = b""

    @property
    def buffered(self) -> int:
        """Octets received and not yet used up."""
        return len(self._buffer) - self._position

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        position = self._position
        if position == len(self._buffer):
            self._buffer = data
            self._searched = 0
        else:
            self._buffer = self._buffer[position:] + data
            self._searched -= position
        self._position = 0

    def discard(self) -> None:
        """Forget what has been received."""
        self._buffer = b""
        self._position = 0
        self._searched = 0
        self._skipped = 0
        self._dropped = b""
        self.skipping = False
        self.endless = False

    def take(self, most: int) -> bytes:
        """Return what has been received, up to a number of octets."""
        start = self._position
        end = min(start + most, len(self._buffer))
        self._position = end
        self._searched = end
        if start == 0 and end == len(self._buffer):
            data = self._buffer
            self.forget_used()
            return data
        return self._buffer[start:end]

    def forget_used(self) -> None:
        """Hold no memory when nothing is held back."""
        if self._position == len(self._buffer):
            self._buffer = b""
            self._position = 0
            self._searched = 0

    def next_line(self, limit: int) -> bytes | None:
        """Return the next line without its CRLF, or None while it is incomplete.

        Args:
            limit: the most octets that it may have, CRLF included.

        Raises:
            Refused: the line is too long, or a bare LF ends it; `head` is its beginning, the rest
                will be skipped.
        """
        if self.skipping and not self._skip():
            return None
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", self._searched, start + limit)
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) - start >= limit:
                self.skipping = True
                self._skipped = 0
                self._searched = start
                self.head = buffer[start : start + HEAD]
                raise Refused("Command line too long", "BAD", "TOOBIG")
            return None
        if end == start or buffer[end - 1] != _CR:
            self._position = end + 1
            self._searched = end + 1
            self.skipping = True
            self._skipped = 0
            self.head = buffer[start : min(end, start + HEAD)]
            raise Refused(BARE_LF)
        self._position = end + 1
        self._searched = end + 1
        line = buffer[start : end - 1]
        self.forget_used()
        return line

    def _skip(self) -> bool:
        """Drop a refused line; whether its CRLF has been found.

        Raises:
            Refused: another line that a bare LF ends.
        """
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", start)
        # A CR at the end may be the first half of what ends the line.
        kept = int(end < 0 and len(buffer) > start and buffer[-1] == _CR)
        stop = len(buffer) - kept if end < 0 else end
        if len(self._dropped) < HEAD:
            self._dropped += buffer[start : min(stop, start + HEAD - len(self._dropped))]
        if end < 0:
            self._skipped += stop - start
            self._position = self._searched = stop
            self.forget_used()
            if self._skipped > SKIP_LIMIT:
                self.endless = True
            return False
        self._skipped += end + 1 - start
        self._position = self._searched = end + 1
        if self._skipped > SKIP_LIMIT:
            self.endless = True
            return False
        if end > start and buffer[end - 1] == _CR:
            self._dropped = b""
            self.skipping = False
            return True
        self.head, self._dropped = self._dropped, b""
        raise Refused(BARE_LF)
