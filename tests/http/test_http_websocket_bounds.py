"""What one websocket can cost the server: memory, pongs that nobody reads, time.

Rules of this file: clients are octets, so that they can do what a library would not.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest
from support.http import App, HttpClient, client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually
from support.websocket_frames import BINARY, CLOSE, PING, TEXT, frame
from websockets.extensions.permessage_deflate import PerMessageDeflate

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Socket(App):
    """Accepts; takes messages when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.open = False
        self.messages: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        self.open = True
        await self.go.wait()
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "websocket.disconnect":
                break
        self.open = False


async def opened(client: HttpClient, fields: bytes = b"") -> bytes:
    client.send(HANDSHAKE % fields)
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


@on_loops
async def test_next_message_is_inflated_only_when_the_last_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inflated: list[int] = []
    decode = PerMessageDeflate.decode

    def noting(self: Any, *arguments: Any, **named: Any) -> Any:
        found = decode(self, *arguments, **named)
        inflated.append(len(found.data))
        return found

    monkeypatch.setattr(PerMessageDeflate, "decode", noting)
    size, count = 4 << 20, 16
    deflate = zlib.compressobj(wbits=-12)
    bomb = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    app = Socket()
    async with serving_app(app) as served, client_of(served) as client:
        assert b"permessage-deflate" in await opened(client, DEFLATE)
        data = frame(BINARY, bomb.removesuffix(b"\x00\x00\xff\xff"), deflated=True)
        client.send(data)
        await eventually(lambda: inflated, "the first message")
        deflate = zlib.compressobj(wbits=-12)
        client.send(data * (count - 1) + frame(CLOSE, b"\x03\xe8"))
        (websocket,) = served.handler.service.connections  # type: ignore[attr-defined]
        await eventually(lambda: len(websocket._buffer) > len(data), "the other messages")
        await asyncio.sleep(0)
        assert inflated == [size]
        app.go.set()
        await eventually(lambda: not app.open, "the end")
    assert [len(message.get("bytes", b"")) for message in app.messages] == [size] * count + [0]
    assert app.messages[-1]["code"] == 1000


@on_loops
async def test_reading_pauses_while_pongs_are_not_read() -> None:
    app = Socket()
    async with serving_app(app) as served, client_of(served) as client:
        await opened(client)
        client.read_nothing()
        (websocket,) = served.handler.service.connections  # type: ignore[attr-defined]
        pings = frame(PING, bytes(125)) * 1000
        sent = 0
        while websocket.transport.is_reading():
            client.send(pings)
            sent += len(pings)
            assert sent < 100 << 20
            await asyncio.sleep(0)
        # What the transport takes before it says that it is enough, and one turn's answers.
        assert websocket.transport.get_write_buffer_size() < 1 << 20
        client.writer.transport.abort()
        app.go.set()
        await eventually(lambda: not app.open, "the end")
    assert [message["code"] for message in app.messages] == [1006]


@on_loops
async def test_fragments_together_are_bounded() -> None:
    app = Socket()
    app.go.set()
    options = {"max_body_size": 1000}
    async with serving_app(app, options=options) as served, client_of(served) as client:
        await opened(client)
        client.send(frame(TEXT, b"a" * 600, fin=False) + frame(0, b"b" * 400))
        await eventually(lambda: app.messages, "the message")
        client.send(frame(TEXT, b"a" * 600, fin=False) + frame(0, b"b" * 401))
        # A Close frame with 1009.
        assert (await client.read())[2:4] == b"\x03\xf1"
        await eventually(lambda: not app.open, "the end")
    assert app.messages[0] == {"type": "websocket.receive", "text": "a" * 600 + "b" * 400}
    assert app.messages[-1]["code"] == 1009


@on_loops
async def test_frames_are_read_in_any_pieces() -> None:
    app = Socket()
    app.go.set()
    whole = (
        frame(TEXT, "é".encode())
        + frame(PING, b"x")
        + frame(BINARY, bytes(300))
        + frame(TEXT, b"\xc3", fin=False)
        + frame(PING, b"")
        + frame(0, b"\xa9")
    )
    async with serving_app(app) as served, client_of(served) as client:
        await opened(client)
        for octet in whole:
            client.send(bytes((octet,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        client.send(frame(CLOSE, b"\x03\xe9bye"))
        await eventually(lambda: not app.open, "the end")
    assert app.messages == [
        {"type": "websocket.receive", "text": "é"},
        {"type": "websocket.receive", "bytes": bytes(300)},
        {"type": "websocket.receive", "text": "é"},
        {"type": "websocket.disconnect", "code": 1001, "reason": "bye"},
    ]


@on_loops
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(3, b""), 1002),
        (frame(0, b"x"), 1002),
        (b"\x81\x01x", 1002),  # not masked
        (frame(CLOSE, b""), 1005),
        (frame(CLOSE, b"\x03\xed"), 1002),  # 1005 must not be sent
        (b"\xff" * 64, 1002),
        (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
async def test_bad_frame_closes_with_its_code(data: bytes, code: int) -> None:
    app = Socket()
    app.go.set()
    async with serving_app(app) as served, client_of(served) as client:
        await opened(client)
        client.send(data)
        await client.read()
        await eventually(lambda: not app.open, "the end")
    assert [message["code"] for message in app.messages] == [code]


@on_loops
@pytest.mark.parametrize(("answers", "alive"), [(True, True), (False, False)])
async def test_client_that_does_not_answer_pings_is_closed(
    answers: bool, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.pings._INTERVAL", 0.05)
    monkeypatch.setattr("fastlisten.handlers.http.pings._PATIENCE", 0.1)
    app = Socket()
    app.go.set()
    async with serving_app(app) as served, client_of(served) as client:
        await opened(client)
        for _ in range(3):
            if not answers and not app.open:
                break
            ping = await asyncio.wait_for(client.reader.readexactly(6), 10)
            assert ping[:2] == b"\x89\x04"
            if answers:
                client.send(frame(10, ping[2:]))
            else:
                await eventually(lambda: not app.open, "the end")
        assert app.open is alive
    # 1012: the server has ended.
    assert [message["code"] for message in app.messages] == ([1012] if alive else [1011])
