"""Frames without a connection: what fragments of a message cost in memory."""

from __future__ import annotations

import tracemalloc

import pytest
from support.websocket_frames import BINARY, TEXT, frame

from fastlisten.handlers.http.head import HeadReader
from fastlisten.handlers.http.websocket_wire import WebSocketWire

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def opened(max_message: int = 1 << 24) -> WebSocketWire:
    wire = WebSocketWire(max_message)
    response = wire.judge(HeadReader().read(HANDSHAKE))
    assert response is not None
    wire.accept(response, [])
    assert b"101" in b"".join(wire.output())
    return wire


def feed(wire: WebSocketWire, data: bytes) -> None:
    buffer = bytearray(data)
    while wire.read(buffer):
        pass
    assert not buffer


@pytest.mark.parametrize("size", [0, 2])
def test_small_fragments_take_no_more_memory_than_their_bytes(size: int) -> None:
    wire, count = opened(), 4_000
    feed(wire, frame(BINARY, b"x", fin=False))
    fragments = frame(0, bytes(size), fin=False) * 100
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(count // 100):
            feed(wire, fragments)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A growing buffer may be an eighth larger than its content.
    assert after - before < size * count * 2 + 4096
    feed(wire, frame(0, b"y"))
    assert wire.message == {"type": "websocket.receive", "bytes": b"x" + bytes(size * count) + b"y"}


def test_message_after_fragments_starts_anew() -> None:
    wire = opened()
    for parts, whole in (((b"a", b"b", b""), "ab"), ((b"", b"", b""), ""), ((b"c",), "c")):
        for number, part in enumerate(parts, 1):
            opcode = TEXT if number == 1 else 0
            feed(wire, frame(opcode, part, fin=number == len(parts)))
        assert wire.message == {"type": "websocket.receive", "text": whole}


def test_fragments_beyond_the_limit_close_with_1009() -> None:
    wire = opened(max_message=10)
    feed(wire, frame(TEXT, b"12345", fin=False) + frame(0, b"123456"))
    assert (wire.message, wire.code) == (None, 1009)
    assert b"".join(wire.output())[2:4] == b"\x03\xf1"
