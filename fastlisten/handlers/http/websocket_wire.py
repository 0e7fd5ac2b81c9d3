"""A websocket's handshake, frames and messages (RFC 6455): octets in, messages and output out.

Rules of this file: sans I/O, using the sans-I/O protocol of `websockets`. The library gets frames
one by one, because it decompresses everything that it is given; so the caller decides when there is
room for another message. The first cause of a close determines its code and reason.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, cast

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.http11 import Response

    from fastlisten.handlers.http.head import Request

__all__ = ["ABNORMAL", "WebSocketWire"]

#: Close codes (RFC 6455 7.4.1): the connection ended without a Close frame; text is not UTF-8.
ABNORMAL, _NOT_TEXT = 1006, 1007

#: Bytes of the fields of a handshake that are passed to the library; it limits each of them.
_HANDSHAKE = 8 * 1024

_DEFLATE = ServerPerMessageDeflateFactory(
    # 4 KiB windows and small tables, as uvicorn: 64 KiB less memory per connection.
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)


class _Silent(logging.Logger):
    """The library's logger, turned off: what matters is logged by our own code."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (logging's own name)
        """Return False."""
        return False


_silent = _Silent("fastlisten.http.silent", logging.CRITICAL + 1)


class WebSocketWire:
    """The server's side of one websocket.

    Args:
        max_message: bytes of a message.

    Attributes:
        code: the close code for the application.
        reason: the text that belongs to it.
        message: a message from the client in ASGI's form, until the application receives it.
    """

    __slots__ = (
        "_fragments",
        "_frame_left",
        "_ping",
        "_text",
        "_wire",
        "code",
        "message",
        "reason",
    )

    def __init__(self, max_message: int) -> None:
        self._wire = ServerProtocol(extensions=[_DEFLATE], max_size=max_message, logger=_silent)
        self._frame_left = 0  # bytes of the current frame still to come
        self._fragments = bytearray()
        self._text = False
        self._ping: bytes | None = None
        self.code, self.reason = ABNORMAL, ""
        self.message: dict[str, Any] | None = None

    @property
    def connecting(self) -> bool:
        """The handshake has not been answered."""
        return self._wire.state is State.CONNECTING

    @property
    def open(self) -> bool:
        """Messages can be sent: neither side has sent Close."""
        return self._wire.state is State.OPEN

    @property
    def ended(self) -> bool:
        """The close code is known."""
        return self._wire.state is not State.OPEN and self.code != ABNORMAL

    # -- the handshake

    def judge(self, request: Request) -> Response | None:
        """Return the library's response to a handshake, or None if the handshake is invalid."""
        fields = b"".join(
            b"%b: %b\r\n" % field
            for field in request.headers
            if field[0].startswith(b"sec-websocket-") or field[0] in (b"host", b"origin")
        )
        if len(fields) > _HANDSHAKE:
            return None
        # protocol.py has checked these two fields; the library accepts only one of each.
        upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        self._wire.receive_data(upgrade + fields + b"\r\n")
        for event in self._wire.events_received():
            if isinstance(event, HandshakeRequest):
                return self._wire.accept(event)
        return None

    def accept(self, response: Response, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Accept the handshake.

        Args:
            response: what `judge` returned.
            fields: further header fields.
        """
        for name, value in fields:
            response.headers[name.decode()] = value.decode("latin-1")
        self._wire.send_response(response)

    # -- input

    def read(self, buffer: bytearray) -> bool:
        """Take a frame, or the part of it that is there, from the front of a buffer.

        Returns:
            Whether anything was taken.
        """
        if not self._frame_left and not self._next_frame(buffer):
            return False
        piece = bytes(buffer[: self._frame_left])
        del buffer[: len(piece)]
        self._frame_left -= len(piece)
        self._wire.receive_data(piece)
        for event in self._wire.events_received():
            self._take(cast(Frame, event))
        if self._wire.parser_exc is not None:
            self._note_end(self._wire.close_sent)
        return bool(piece)

    def _next_frame(self, buffer: bytearray) -> bool:
        """Parse the length of the next frame (RFC 6455 5.2); return whether it is known."""
        if len(buffer) < 2:
            return False
        length, extended = buffer[1] & 0x7F, 0
        if length > 125:
            extended = 2 if length == 126 else 8
            if len(buffer) < 2 + extended:
                return False
            length = int.from_bytes(buffer[2 : 2 + extended], "big")
        # The library checks whether the frame may be that long, and that it is masked.
        self._frame_left = 2 + extended + 4 * (buffer[1] >> 7) + length
        return True

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if self.open:
                self._take_data(frame)
        elif frame.opcode is Opcode.PONG:
            if frame.data == self._ping:
                self._ping = None
        elif frame.opcode is Opcode.CLOSE:
            self._note_end(self._wire.close_rcvd)

    def _take_data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        data = bytes(frame.data)
        if self._fragments or not frame.fin:
            # Not a list of fragments: one of two bytes, or of none, would take fifty.
            self._fragments += data
            if not frame.fin:
                return
            data = bytes(self._fragments)
            self._fragments = bytearray()
        if not self._text:
            self.message = {"type": "websocket.receive", "bytes": data}
            return
        try:
            self.message = {"type": "websocket.receive", "text": data.decode()}
        except UnicodeDecodeError:
            self.fail(_NOT_TEXT, "not UTF-8")

    def _note_end(self, close: Close | None) -> None:
        if close is not None and self.code == ABNORMAL:
            self.code, self.reason = int(close.code), close.reason

    # -- output

    def output(self) -> list[bytes]:
        """Return the data to send; an empty item means to close the connection."""
        return self._wire.data_to_send()

    def send(self, data: str | bytes) -> None:
        """Send a message, text or binary."""
        if isinstance(data, str):
            self._wire.send_text(data.encode())
        else:
            self._wire.send_binary(data)

    def close(self, code: int, reason: str = "") -> None:
        """Send a Close frame.

        Raises:
            websockets.exceptions.ProtocolError: the code or the reason must not be sent.
        """
        self._wire.send_close(code, reason)
        self.code, self.reason = code, reason

    def fail(self, code: int, reason: str) -> None:
        """Close because of an error by the client, which need not answer."""
        if self.open:
            self.code, self.reason = code, reason
            self._wire.fail(code, reason)

    def ping(self) -> None:
        """Send a ping."""
        self._ping = os.urandom(4)
        self._wire.send_ping(self._ping)

    @property
    def ping_answered(self) -> bool:
        """The last ping has been answered, or there was none."""
        return self._ping is None
