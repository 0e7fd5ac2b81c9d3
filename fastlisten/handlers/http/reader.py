"""Splits the input of one connection into requests and their bodies.

    octets ──> head ──> body ──> (waits until the request has been answered) ──> next head

Rules of this file: sans I/O. Input is parsed only when asked for; a pipelined request is not parsed
until the one before it has been answered. head.py and body.py do the parsing.
"""

from __future__ import annotations

from fastlisten.handlers.http.body import Body, ChunkedBody, CountedBody
from fastlisten.handlers.http.head import HeadReader, Request, RequestError, find_end

__all__ = ["RequestReader"]


class RequestReader:
    """Reads the requests of one connection.

    Args:
        heads: parses heads; several connections may share it.
        max_head: bytes of a request's head, and of the lines between chunks.
        max_body: bytes of a request's body, None for no limit.

    Attributes:
        buffer: input that has not been parsed.
        body: the reader of the last request's body; None if the body is complete.
    """

    __slots__ = ("_heads", "_looked", "_max_body", "_max_head", "body", "buffer")

    def __init__(self, heads: HeadReader, max_head: int, max_body: int | None) -> None:
        self.buffer = bytearray()
        self.body: Body | None = None
        self._heads = heads
        self._max_head = max_head
        self._max_body = max_body
        self._looked = 0  # bytes of the buffer that hold no end of a head

    def whole_request(self, data: bytes) -> Request | None:
        """Return the request if the input is exactly one complete head, as it usually is.

        Args:
            data: new input; the buffer must be empty.

        Raises:
            RequestError: the request is refused.
        """
        if data.endswith(b"\r\n\r\n") and find_end(data, 0) == len(data):
            return self._read(data)
        return None

    def next_request(self) -> Request | None:
        """Return the next request, or None if its head is incomplete.

        Raises:
            RequestError: the request is refused.
        """
        buffer = self.buffer
        end = find_end(buffer, self._looked)
        if end < 0:
            if len(buffer) > self._max_head:
                raise RequestError(431, "the head is too large")
            if not 0x21 <= buffer[0] <= 0x7E:
                # Not the first character of a method: TLS, or an empty line.
                raise RequestError(400, "no method")
            self._looked = len(buffer)
            return None
        head = bytes(buffer[:end])
        del buffer[:end]
        self._looked = 0
        return self._read(head)

    def _read(self, head: bytes) -> Request:
        if len(head) > self._max_head:
            raise RequestError(431, "the head is too large")
        request = self._heads.read(head)
        length, limit = request.length, self._max_body
        if length is None:
            self.body = ChunkedBody(limit, self._max_head)
        elif length:
            if limit is not None and length > limit:
                raise RequestError(413, "the body is too large")
            self.body = CountedBody(length)
        return request

    def next_data(self) -> bytes:
        """Return the next part of the last request's body; empty if there is no more input.

        Raises:
            RequestError: the body is refused.
        """
        body = self.body
        if body is None:
            return b""
        data = body.read(self.buffer)
        if body.done:
            self.body = None
        return data
