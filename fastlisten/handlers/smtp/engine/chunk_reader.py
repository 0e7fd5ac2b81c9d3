"""Where the chunks of BDAT end in the stream of an SMTP client, and whether they hold text.

Rules of this file: octets in, octets out; no commands, no replies. A chunk ends after the number of
octets that its command named (RFC 3030 2), whatever these are, and none of them is held back. What
is asked of text is what input_buffer.py asks of it: no CR without its LF, no LF without its CR. A
CR that ends a chunk may have its LF at the beginning of the next.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.input_buffer import BARE_CR, NO_BREAKS, Framing

__all__ = ["Chunks"]

_LF = 10
_CR = 13


class Chunks(Framing):
    """The same part of the stream, read as chunks.

    Attributes:
        chunked: the transaction's message comes by BDAT, and its first chunk has been begun.
    """

    __slots__ = ("_final", "_half", "_left", "chunked")

    def __init__(self) -> None:
        super().__init__()
        self._left = 0  # octets of the current chunk that have not been used up
        self._final = False  # it is the last one of its message
        self._half = False  # the last octet of the message so far is a CR
        self.chunked = False

    def begin_chunk(self, size: int, final: bool) -> None:
        """What follows is a chunk.

        Args:
            size: its octets.
            final: the message is whole after it.
        """
        self._left = size
        self._final = final

    def begin_chunks(self) -> None:
        """The chunk that has been begun is the first one of its message."""
        self.chunked = True
        self._half = False
        self.bare = False

    def next_octets(self) -> bytes:
        """Return what has been received of the chunk."""
        start = self._position
        piece = self._buffer[start : start + self._left]
        self._position = start + len(piece)
        self._left -= len(piece)
        return piece

    def skip_octets(self) -> None:
        """Drop what has been received of the chunk."""
        skipped = min(self._left, self.buffered)
        self._position += skipped
        self._left -= skipped

    def judge(self, piece: bytes) -> None:
        """Set `bare` if the message as far as it has come holds a bare CR or LF."""
        if self._half and piece:
            if piece[0] != _LF:
                self.bare = True
            piece = piece[1:]
            self._half = False
        if piece:
            self._half = piece[-1] == _CR
            # As in `Framing.next_piece`, but for a CR at the end.
            breaks = piece.translate(None, NO_BREAKS)
            pairs, odd = divmod(len(breaks), 2)
            if (
                breaks != b"\r\n" * pairs + b"\r" * odd
                or odd != self._half
                or BARE_CR.search(piece)
            ):
                self.bare = True
        if self._final and not self._left and self._half:
            self.bare = True
