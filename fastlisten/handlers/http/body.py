"""Reads the body of a request: octets in, data out.

Rules of this file: sans I/O. A reader takes what belongs to the body from the front of a buffer and
leaves the rest. Each call reads a bounded number of chunks, so that the connection can give other
connections their turn.

Chunks are parsed here, because httptools accepts sizes, extensions and trailers of any length.
Well-formed extensions and trailers are discarded (RFC 9112 7.1.1, 7.1.2).
"""

from __future__ import annotations

import re

from fastlisten.handlers.http.head import MAX_LINES, RequestError

__all__ = ["Body", "ChunkedBody", "CountedBody"]

#: The most chunks per call; chunks of one octet then take 0.2 ms.
_CHUNKS = 128

#: The most octets per call, so that nothing large is copied twice.
SLICE = 64 * 1024

#: How many octets the lines between chunks may have, besides 16 per chunk and twice the data. More
#: is an attack: endless extensions cost time and do not count towards the limit on bodies.
_EXCESS = 16 * 1024

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + _TEXT + rb")?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:" + _TEXT + rb"\r\n")


class CountedBody:
    """A body with a Content-Length.

    Args:
        length: octets, at least 1.

    Attributes:
        done: all of it has been read.
    """

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def read(self, buffer: bytearray) -> bytes:
        """Take data from the front of a buffer."""
        data = bytes(buffer[: min(self._left, SLICE)])
        del buffer[: len(data)]
        self._left -= len(data)
        self.done = not self._left
        return data


class ChunkedBody:
    """A body in chunks (RFC 9112 7.1).

         size ──> data ──> its CRLF ──┐
          ^  └──0──> trailers ──> done│
          └───────────────────────────┘

    Args:
        max_body: the most octets of data; None for no limit.
        max_lines: the most octets of a line, and of all trailers.

    Attributes:
        done: all of it has been read.
    """

    __slots__ = (
        "_end",
        "_excess",
        "_left",
        "_max_body",
        "_max_lines",
        "_total",
        "_trailers",
        "done",
    )

    def __init__(self, max_body: int | None, max_lines: int) -> None:
        self.done = False
        self._max_body = max_body
        self._max_lines = max_lines
        self._left = 0  # octets of data still to come
        self._end = False  # the CRLF after data is next
        self._trailers = -1  # lines of them, -1 before the last chunk
        self._total = 0
        self._excess = 0

    def read(self, buffer: bytearray) -> bytes:
        """Take data, and the lines between chunks, from the front of a buffer.

        Raises:
            RequestError: the body is not in valid chunks, or too large.
        """
        pieces: list[bytes] = []
        at = 0
        for _ in range(_CHUNKS):
            if self._left:
                piece = bytes(buffer[at : at + min(self._left, SLICE)])
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._end = True
            start = at
            if self._end:
                at = self._after_data(buffer, at)
            elif self._trailers < 0:
                at = self._size_line(buffer, at)
            else:
                at = self._trailer(buffer, at)
            if at == start or self.done:
                break
        del buffer[:at]
        return b"".join(pieces)

    def _after_data(self, buffer: bytearray, at: int) -> int:
        end = bytes(buffer[at : at + 2])
        if end == b"\r\n":
            self._end = False
            return at + 2
        if end not in (b"", b"\r"):
            raise RequestError(400, "a chunk is not followed by CRLF")
        return at

    def _size_line(self, buffer: bytearray, at: int) -> int:
        end = self._line_end(buffer, at)
        if not end:
            return at
        found = _SIZE.fullmatch(buffer, at, end)
        if found is None:
            raise RequestError(400, "malformed chunk size or extension")
        size = int(found[1], 16)
        self._total += size
        if self._max_body is not None and self._total > self._max_body:
            raise RequestError(413, "the body is too large")
        self._excess = max(0, self._excess + (end - at) - 16 - 2 * size)
        if self._excess > _EXCESS:
            raise RequestError(400, "too many octets between chunks")
        if size:
            self._left = size
        else:
            self._trailers = 0
            self._excess = 0
        return end

    def _trailer(self, buffer: bytearray, at: int) -> int:
        end = self._line_end(buffer, at)
        if not end:
            return at
        if end - at == 2 and buffer[at] == 0x0D:
            self.done = True
            return end
        if not _TRAILER.fullmatch(buffer, at, end):
            raise RequestError(400, "malformed trailer")
        self._trailers += 1
        self._excess += end - at
        if self._trailers > MAX_LINES or self._excess > self._max_lines:
            raise RequestError(431, "too many trailers")
        return end

    def _line_end(self, buffer: bytearray, at: int) -> int:
        """Return where a line ends, or 0 if it is incomplete."""
        end = buffer.find(b"\n", at) + 1
        if (end or len(buffer)) - at > self._max_lines:
            raise RequestError(431, "a line between chunks is too large")
        return end


Body = CountedBody | ChunkedBody
