"""Finds where BDAT chunks end in the input of an SMTP client, and whether they are text.

Rules of this file: octets in, octets out; no commands, no replies. A chunk has exactly the number
of octets that its command announced (RFC 3030 2), and none of them is held back. As in
input_buffer.py, text has no CR without LF and no LF without CR; a CR at the end of a chunk may have
its LF at the beginning of the next.
"""

from __future__ import annotations

from fastlisten import _mail_syntax as syntax
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer

__all__ = ["ChunkReader"]

_CR = 13
_LF = 10


class ChunkReader:
    """The chunks of one session, read from its input.

    Attributes:
        bare: the message that is being read has held a bare CR or LF.
        final: the current chunk is the last one of its message.
        left: octets of the current chunk that have not been read yet.
    """

    __slots__ = ("_after_cr", "_input", "bare", "final", "left")

    def __init__(self, source: InputBuffer) -> None:
        self._input = source
        self._after_cr = False  # the message as far as it has come ends with a CR
        self.bare = False
        self.final = False
        self.left = 0

    def begin_message(self) -> None:
        """The chunk that follows is the first one of its message."""
        self._after_cr = False
        self.bare = False

    def begin_chunk(self, size: int, final: bool) -> None:
        """What follows is a chunk.

        Args:
            size: its octets.
            final: the message is whole after it.
        """
        self.left = size
        self.final = final

    def next_piece(self) -> bytes:
        """Return what has been received of the chunk."""
        piece = self._input.take(self.left)
        self.left -= len(piece)
        return piece

    def skip(self) -> None:
        """Drop what has been received of the chunk."""
        self.left -= self._input.skip(self.left)

    def judge(self, piece: bytes) -> None:
        """Set `bare` if the message as far as it has come holds a bare CR or LF."""
        if piece:
            begins_with_lf = piece[0] == _LF
            start = 1 if begins_with_lf else 0
            if self._after_cr != begins_with_lf or syntax.has_bare_break(piece, start):
                self.bare = True
            self._after_cr = piece[-1] == _CR
        if self._after_cr and self.final and not self.left:
            self.bare = True
