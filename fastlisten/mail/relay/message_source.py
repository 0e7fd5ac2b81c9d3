"""A message on its way to the relay: read piece by piece, and made ready for DATA.

Rules of this file: octets, from a file or from memory; nothing of a session. The loop never reads
a file, and nothing is left open between two pieces.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastlisten.mail.relay.relay_error import NOT_READ, RelayError

__all__ = ["BytesSource", "MessageSource", "RequiredExtensions", "pieces", "required_extensions"]

#: Octets of a message that are read and written at a time.
PIECE = 256 * 1024

#: Octets of a message that its last piece has at least, if there are so many.
_LAST = 5

#: Octets of a header that are looked at.
_LONGEST_HEADER = 1024 * 1024


class MessageSource:
    """A message in a file, read piece by piece in a thread.

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


class BytesSource(MessageSource):
    """A message in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        super().__init__("", 0, len(data))
        self._data = data

    def read(self, offset: int) -> bytes:
        """Return a piece."""
        return self._data[offset : offset + PIECE]


@dataclass(frozen=True, slots=True)
class RequiredExtensions:
    """What a message needs of those who carry it.

    Attributes:
        eight_bits: there are octets beyond ASCII in it (RFC 6152).
        utf8_header: there are in its header, and they are UTF-8 (RFC 6532).
    """

    eight_bits: bool = False
    utf8_header: bool = False


def _examine(content: MessageSource) -> RequiredExtensions:
    header, ended, whole, eight_bits = bytearray(), False, True, False
    offset = 0
    while offset < content.size and not (ended and eight_bits):
        piece = content.read(offset)
        offset += len(piece)
        eight_bits = eight_bits or not piece.isascii()
        if not ended:
            # Three octets of the piece before, so that an end that is cut is seen.
            seen = max(0, len(header) - 3)
            header += piece
            end = header.find(b"\r\n\r\n", seen)
            whole = end >= 0 or len(header) <= _LONGEST_HEADER
            ended = end >= 0 or not whole
            if ended:
                del header[end if end >= 0 else _LONGEST_HEADER :]
    return RequiredExtensions(eight_bits, not header.isascii() and _is_utf8(header, whole))


def _is_utf8(octets: bytearray, whole: bool) -> bool:
    """Whether octets are UTF-8; unless they are whole, their end may cut a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(octets, whole)
    except UnicodeDecodeError:
        return False
    return True


async def required_extensions(content: MessageSource) -> RequiredExtensions:
    """Find out what a message needs, whatever its sender has declared.

    Raises:
        RelayError: it cannot be read.
    """
    try:
        return await asyncio.to_thread(_examine, content)
    except OSError as error:
        raise RelayError(NOT_READ, str(error)) from error


async def pieces(content: MessageSource, stuffed: bool) -> AsyncIterator[bytes]:
    """Give a message piece by piece, as DATA wants it if `stuffed`: dots doubled, and the end.

    The last piece is what makes the message whole: its last octets, and after them the final dot.

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
            # Two octets of the piece before, so that a line that begins at the cut is seen.
            joined = tail + piece
            tail, piece = joined[-2:], joined.replace(b"\r\n.", b"\r\n..")[2:]
        joined = held + piece
        piece, held = joined[:-_LAST], joined[-_LAST:]
        if piece:
            yield piece
    if stuffed:
        # A message that came by BDAT may end without CRLF, which DATA cannot say.
        held += b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"
    yield held
