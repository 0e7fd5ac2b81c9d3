"""An HTTP response to the handshake of a websocket (ASGI's extension websocket.http.response).

Rules of this file: a response like any other, but the connection ends with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastlisten.handlers.http.response import ResponseError, ResponseHead, octets

if TYPE_CHECKING:
    from fastlisten.handlers.http.asgi import Message

__all__ = ["Denial"]


class Denial:
    """An application's HTTP response in place of accepting a websocket.

    Args:
        message: websocket.http.response.start.

    Attributes:
        status: of the response.
        begun: some of it has been sent.

    Raises:
        ResponseError: the head is invalid.
    """

    __slots__ = ("_head", "begun")

    def __init__(self, message: Message) -> None:
        headers = message.get("headers", ())
        self._head = ResponseHead(message["status"], headers, head_only=False)
        self.begun = False

    @property
    def status(self) -> int:
        """Of the response."""
        return self._head.status

    def send(self, message: Message, transport: asyncio.WriteTransport) -> bool:
        """Send a part of the body, the first one with the head; return whether it is the last.

        Raises:
            ResponseError: the message is not allowed, or not at this point.
        """
        kind, head = message["type"], self._head
        if kind != "websocket.http.response.body":
            raise ResponseError(f"{kind!r} comes where websocket.http.response.body is expected")
        body, more = octets(message.get("body", b"")), bool(message.get("more_body", False))
        head.count(len(body), more=more)
        if head.bodiless:
            body = b""
        if self.begun:
            if body:
                transport.write(body)
            return not more
        fields = [b"connection: close\r\n"]
        if not more and head.length is None and not head.bodiless:
            fields.insert(0, b"content-length: %d\r\n" % len(body))
        self.begun = True
        transport.write(head.encode(*fields) + body)
        return not more
