"""Finds where BDAT chunks end in the input of an SMTP client, and whether they are text.

Rules of this file: octets in, octets out; no commands, no replies. A chunk has exactly the number
of octets that its command announced (RFC 3030 2), and none of them is held back. As in
input_buffer.py, text has no CR without LF and no LF without CR; a CR at the end of a chunk may have
its LF at the beginning of the next.
"""

from __future__ import annotations

import io

from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer

__all__ = ["ChunkReader"]

#: What the line ends of a text are called that has none, or none but CRLF.
_NONE_BARE = (None, "\r\n")


class ChunkReader:
    """The chunks of one session, read from its input.

    Attributes:
        bare: the message that is being read has held a bare CR or LF.
        final: the current chunk is the last one of its message.
        left: octets of the current chunk that have not been read yet.
    """

    __slots__ = ("_input", "_line_ends", "bare", "final", "left")

    def __init__(self, source: InputBuffer) -> None:
        self._input = source
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=False)
        self.bare = False
        self.final = False
        self.left = 0

    def begin_message(self) -> None:
        """The chunk that follows is the first one of its message."""
        self._line_ends = io.IncrementalNewlineDecoder(None, translate=False)
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
        # A pass of C over the octets, 0.35 ns for each; it keeps a CR at the end back, whose LF may
        # begin the next piece.
        self._line_ends.decode(piece.decode("latin-1"), self.final and not self.left)
        if self._line_ends.newlines not in _NONE_BARE:
            self.bare = True
