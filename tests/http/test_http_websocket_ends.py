"""Frames without a connection: what counts as the cause of a close, an answer to a ping, data.

Rules of this file: octets in, state and octets out.
"""

from __future__ import annotations

import struct

import pytest
from support.websocket_frames import BINARY, CLOSE, TEXT, frame

from fastlisten.handlers.http.head import HeadReader
from fastlisten.handlers.http.websocket_wire import WebSocketWire

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
PONG = 10


@pytest.fixture
def wire() -> WebSocketWire:
    wire = WebSocketWire(1 << 20)
    response = wire.judge(HeadReader().read(HANDSHAKE % b""))
    assert response is not None
    wire.accept(response, [])
    wire.output()
    return wire


def feed(wire: WebSocketWire, data: bytes) -> None:
    buffer = bytearray(data)
    while wire.read(buffer):
        pass


def closing(code: int, reason: bytes = b"") -> bytes:
    """Return the content of a Close frame (RFC 6455 5.5.1)."""
    return struct.pack("!H", code) + reason


def test_clients_close_gives_code_and_reason(wire: WebSocketWire) -> None:
    feed(wire, frame(CLOSE, closing(4001, b"bye")))
    assert (wire.code, wire.reason, wire.ended) == (4001, "bye", True)


def test_clients_answer_does_not_change_our_code(wire: WebSocketWire) -> None:
    wire.close(4002, "ours")
    feed(wire, frame(CLOSE, closing(4001, b"theirs")))
    assert (wire.code, wire.reason) == (4002, "ours")


def test_text_that_is_not_utf8_is_1007(wire: WebSocketWire) -> None:
    feed(wire, frame(TEXT, b"\xff"))
    assert wire.message is None
    assert wire.code == 1007
    assert closing(1007) in b"".join(wire.output())


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_data_after_our_close_is_no_message(wire: WebSocketWire, opcode: int) -> None:
    wire.close(1000)
    feed(wire, frame(opcode, b"late"))
    assert wire.message is None


def test_only_the_pings_own_pong_answers_it(wire: WebSocketWire) -> None:
    wire.ping()
    (ping,) = wire.output()
    for other in (b"", b"abcd", ping[2:] + b"x"):
        feed(wire, frame(PONG, other))
        assert not wire.ping_answered
    feed(wire, frame(PONG, ping[2:]))
    assert wire.ping_answered


@pytest.mark.parametrize(("count", "taken"), [(1, True), (3, False)])
def test_fields_of_a_handshake_have_a_bound(count: int, taken: bool) -> None:
    """All together: each of them is short enough for the library."""
    field = b"Sec-WebSocket-Protocol: %b\r\n" % (b"x" * 4000)
    wire = WebSocketWire(1 << 20)
    response = wire.judge(HeadReader().read(HANDSHAKE % (field * count)))
    assert (response is not None) is taken
