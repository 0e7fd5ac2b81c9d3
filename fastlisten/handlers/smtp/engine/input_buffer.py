"""Finds where command lines and messages end in the input of an SMTP client.

Rules of this file: octets in, lines and pieces of messages out; no commands, and no replies except
to invalid lines. The result does not depend on how the input is split, and no more than the longest
command line is held back.

To prevent SMTP smuggling (RFC 5321 2.3.8, 4.1.1.4, 7.1), only CRLF ends a command, and only CRLF
"." CRLF ends a message. A command line that contains a bare CR, a bare LF or a NUL is refused as a
whole, up to its CRLF. Bare CRs and LFs in a message are reported (`bare`), so that the message can
be refused after its real end; a relaying server that tried to smuggle in a second message sees one
refusal of one message. NULs in messages are allowed, and lines of a message may have any length,
because much real mail exceeds the 998 octets of RFC 5322 and the message's size is limited anyway.
"""

from __future__ import annotations

from fastlisten import _mail_syntax as syntax
from fastlisten.handlers.smtp.engine.refusal import Refused

__all__ = [
    "AUTH_LINE_LIMIT",
    "LINE_LIMIT",
    "PATH_LINE_LIMIT",
    "InputBuffer",
]

#: RFC 5321 4.5.3.1.4: the most octets of a command line, CRLF included.
LINE_LIMIT = 512

#: The same for MAIL and RCPT: extensions lengthen them (SIZE 26, BODY 17, SMTPUTF8 10, RET 9, ENVID
#: 107, AUTH 500; NOTIFY 28, ORCPT 500), and a line that is refused for its parameters must be read
#: first.
PATH_LINE_LIMIT = 2048

#: The same for AUTH and for what is said to its challenges (RFC 4954 4).
AUTH_LINE_LIMIT = 12_288

_LONG_LINES = {b"MAIL": PATH_LINE_LIMIT, b"RCPT": PATH_LINE_LIMIT, b"AUTH": AUTH_LINE_LIMIT}

_DOT = 46


class InputBuffer:
    """The part of the stream that has been received and not used up yet.

    Attributes:
        bare: the message that is being read has held a bare CR or LF.
        ended: the piece that `next_piece` gave last was the message's last.
        skipping: inside a command line that has been refused.
    """

    __slots__ = ("_buffer", "_line_start", "_position", "bare", "ended", "skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0  # of the first octet of the buffer that has not been used up
        self._line_start = False  # at the first octet of a message
        self.bare = False
        self.ended = False
        self.skipping = False

    @property
    def buffered(self) -> int:
        """Octets received and not yet used up."""
        return len(self._buffer) - self._position

    def empty(self) -> bool:
        """Return whether all that has been received is used up."""
        return self._position == len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0

    def discard(self) -> None:
        """Forget what has been received."""
        self._buffer = b""
        self._position = 0

    # --- octets that are counted --------------------------------------------------------------

    def take(self, most: int) -> bytes:
        """Return what has been received, up to a number of octets."""
        start, taken = self._position, min(most, self.buffered)
        self._position = start + taken
        return syntax.part(self._buffer, start, start + taken)

    def skip(self, most: int) -> int:
        """Drop what has been received, up to a number of octets; return how many these were."""
        skipped = min(most, self.buffered)
        self._position += skipped
        return skipped

    # --- command lines ------------------------------------------------------------------------

    def next_line(self) -> bytes | None:
        """Return the next command line without its CRLF, or None while it is incomplete.

        Raises:
            Refused: the line is bad; it will be skipped, once for all.
        """
        if self.skipping and not self._skip_line():
            return None
        buffer, start = self._buffer, self._position
        if start == len(buffer):
            return None
        end = syntax.line_end(buffer, start, LINE_LIMIT)
        if end >= 0:
            self._position = end + 2
            return syntax.part(buffer, start, end)
        return self._odd_line(_LONG_LINES.get(buffer[start : start + 4].upper(), LINE_LIMIT))

    def next_response(self) -> bytes | None:
        """Return the next line of an AUTH dialogue, as `next_line` does a command line.

        A dialogue begins and goes on after whole lines, so that none is being skipped.
        """
        return self._odd_line(AUTH_LINE_LIMIT) if self.buffered else None

    def _odd_line(self, limit: int) -> bytes | None:
        """Return or refuse a line that is long, bad or incomplete.

        The verdict depends on the octets up to the first bad one alone, never on how they were
        cut into pieces.

        Args:
            limit: the most octets that it may have, CRLF included.
        """
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n", start, start + limit)
        line = buffer[start : end if end >= 0 else start + limit]
        # Plain searches: a line that comes octet by octet is looked at as often as it has octets.
        # A CR at the end of the input is not judged yet.
        stray = line.find(b"\r")
        if b"\n" in line or b"\0" in line or (stray >= 0 and (end >= 0 or stray + 1 < len(line))):
            self.skipping = True
            raise Refused(500, "5.5.2", "Bare CR, bare LF or NUL in command line")
        if end >= 0:
            self._position = end + 2
            return line
        if len(line) == limit:
            self.skipping = True
            status = "5.5.6" if limit == AUTH_LINE_LIMIT else "5.5.2"  # RFC 4954 4
            raise Refused(500, status, "Line too long")
        return None

    def _skip_line(self) -> bool:
        """Drop a refused line; whether its CRLF has been found."""
        end = self._buffer.find(b"\r\n", self._position)
        if end >= 0:
            self._position = end + 2
            self.skipping = False
            return True
        # A CR may be the first half of what ends the line.
        self._position = len(self._buffer) - self._buffer.endswith(b"\r", self._position)
        return False

    # --- messages -----------------------------------------------------------------------------

    def begin_content(self) -> None:
        """What follows is a message (RFC 5321 4.1.1.4)."""
        self._line_start = True
        self.ended = False
        self.bare = False

    def next_piece(self) -> bytes | None:
        """Return what has been received of the message, unstuffed, or None while that is nothing.

        The last piece, after which `ended` is true, may be empty. A piece in which a bare CR or
        LF is found sets `bare`; the message is worthless then, the piece is not unstuffed.
        """
        buffer, start = self._buffer, self._position
        if self._line_start:
            # The CRLF before the first line of a message is the DATA command's.
            head = syntax.part(buffer, start, start + 3)
            if head == b".\r\n":
                self._position = start + 3
                self.ended = True
                return b""
            if not head or head == b"." or head == b".\r":
                return None
            if head[0] == _DOT:  # a stuffed one
                start += 1
            self._line_start = False
        stop, ended, dots, bare = syntax.find_end(buffer, start)
        if ended:
            self._position = stop + 3
            self.ended = True
        elif stop > start:
            self._position = stop
        else:
            self._position = start
            return None
        piece = syntax.part(buffer, start, stop)
        if bare:
            self.bare = True
        elif dots:
            piece = piece.replace(b"\r\n.", b"\r\n")
        return piece
