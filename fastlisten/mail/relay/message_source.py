"""A message for the relay: read in pieces, dot-stuffed for DATA.

Rules of this file: octets, from a file or from memory; nothing about sessions. Files are read in a
thread, and no file stays open between two pieces.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

from fastlisten.mail.relay.relay_error import NOT_READ, RelayError

__all__ = ["BytesSource", "MessageSource", "pieces"]

#: Octets per piece.
PIECE = 256 * 1024

#: The fewest octets of the last piece, if the message has that many.
_LAST = 5


class MessageSource:
    """A message in a file, read piece by piece in a thread.

    Args:
        path: the file.
        skip: octets at its beginning that are not for the relay.
        size: the number of octets that are.
    """

    __slots__ = ("_path", "_skip", "size")

    def __init__(self, path: str, skip: int, size: int) -> None:
        self._path = path
        self._skip = skip
        self.size = size

    def read(self, offset: int) -> bytes:
        """Return a piece, which is not empty.

        The file is opened for each piece, so that nothing is left open if the caller is cancelled.

        Raises:
            OSError: it cannot be read, or has become shorter.
        """
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._skip + offset)
            piece = file.read(min(PIECE, self.size - offset))
        if not piece:
            raise OSError(errno.EIO, "the file is too short", self._path)
        return piece


class BytesSource(MessageSource):
    """A message in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        super().__init__("", 0, len(data))
        self._data = data

    def read(self, offset: int) -> bytes:
        """Return a piece."""
        return self._data[offset : offset + PIECE]


async def pieces(content: MessageSource, stuffed: bool) -> AsyncIterator[bytes]:
    """Yield a message in pieces; if `stuffed`, for DATA: with dots doubled and a final dot.

    The last piece completes the message: its last octets and, if `stuffed`, the final dot.

    Raises:
        RelayError: it cannot be read.
    """
    tail, held = b"\r\n", b""
    offset = 0
    while offset < content.size:
        try:
            piece = await asyncio.to_thread(content.read, offset)
        except OSError as error:
            raise RelayError(NOT_READ, str(error)) from error
        offset += len(piece)
        if stuffed:
            # With the last two octets of the previous piece, in case a line begins at the cut.
            joined = tail + piece
            tail, piece = joined[-2:], joined.replace(b"\r\n.", b"\r\n..")[2:]
        joined = held + piece
        piece, held = joined[:-_LAST], joined[-_LAST:]
        if piece:
            yield piece
    if stuffed:
        # A message that came by BDAT may end without CRLF, but by DATA it cannot.
        held += b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"
    yield held
