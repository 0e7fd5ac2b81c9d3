"""A message on its way to the relay: read piece by piece, and made ready for DATA.

Rules of this file: octets, from a file or from memory; nothing of a session. The loop never reads
a file, and nothing is left open between two pieces.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

from fastlisten.handlers.smtp_relay_replies import NOT_READ, RelayRefused

__all__ = ["Octets", "Source", "pieces"]

#: Octets of a message that are read and written at a time.
PIECE = 256 * 1024


class Source:
    """Octets of a message, read piece by piece in a thread.

    Args:
        path: the file.
        skip: octets at its beginning that are not for the relay.
        size: octets that are.
    """

    __slots__ = ("_path", "_skip", "size")

    def __init__(self, path: str, skip: int, size: int) -> None:
        self._path = path
        self._skip = skip
        self.size = size

    def read(self, offset: int) -> bytes:
        """Return a piece, not empty.

        The file is opened anew each time: nothing is left behind by who is cancelled.

        Raises:
            OSError: it cannot be read, or is shorter than it was.
        """
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._skip + offset)
            piece = file.read(min(PIECE, self.size - offset))
        if not piece:
            raise OSError(errno.EIO, "the file is too short", self._path)
        return piece


class Octets(Source):
    """Octets of a message that is in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        super().__init__("", 0, len(data))
        self._data = data

    def read(self, offset: int) -> bytes:
        """Return a piece."""
        return self._data[offset : offset + PIECE]


async def pieces(content: Source, stuffed: bool) -> AsyncIterator[bytes]:
    """Give a message piece by piece, as DATA wants it if `stuffed`: dots doubled, and the end.

    Raises:
        RelayRefused: it cannot be read.
    """
    tail = b"\r\n"
    offset = 0
    while offset < content.size:
        try:
            piece = await asyncio.to_thread(content.read, offset)
        except OSError as error:
            raise RelayRefused(NOT_READ, str(error)) from error
        offset += len(piece)
        if stuffed:
            # Two octets of the piece before, so that a line that begins at the cut is seen.
            joined = tail + piece
            tail, piece = joined[-2:], joined.replace(b"\r\n.", b"\r\n..")[2:]
        yield piece
    if stuffed:
        # A message that came by BDAT may end without CRLF, which DATA cannot say.
        yield b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"
