"""What one websocket may keep from the others, from its application, and for how long.

Rules of this file: clients are octets; what is kept and how often there are turns is counted.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.http import HttpClient, client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually
from support.websocket_frames import BINARY, PING, frame

from fastlisten.handlers.http import websocket
from fastlisten.handlers.http.websocket import WebSocket

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Slow:
    """Accepts, and takes messages once `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.told: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        await self.go.wait()
        while not self.told or self.told[-1]["type"] != "websocket.disconnect":
            self.told.append(await receive())


async def opened(served: Any, client: HttpClient) -> WebSocket:
    client.send(HANDSHAKE)
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    (connection,) = served.handler.service.connections
    assert isinstance(connection, WebSocket)
    return connection


@on_loops
async def test_messages_that_nobody_takes_stay_in_the_kernel() -> None:
    app = Slow()
    async with serving_app(app) as served, client_of(served) as client:
        connection = await opened(served, client)
        client.send(frame(BINARY, bytes(1000)) * 20_000)
        await eventually(lambda: not connection._reading, "the pause")
        # One read beyond the bound, at most.
        assert len(connection._buffer) <= websocket._HIGH_WATER + 256 * 1024
        app.go.set()
        await eventually(lambda: len(app.told) == 20_000, "all messages")
        client.writer.transport.abort()
        await eventually(lambda: not served.listener.connections, "the end")


@on_loops
async def test_long_work_on_frames_is_cut_into_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    real = WebSocket._take_turn

    def counted(self: WebSocket) -> None:
        turns.append(self)
        real(self)

    monkeypatch.setattr(WebSocket, "_take_turn", counted)
    monkeypatch.setattr(websocket, "_SHARE", -1.0)  # any work takes longer
    app = Slow()
    async with serving_app(app) as served, client_of(served) as client:
        await opened(served, client)
        client.send(frame(PING, b"x") * 50)
        assert await client.reader.readexactly(3 * 50) == b"\x8a\x01x" * 50
        assert len(turns) >= 49
        app.go.set()


@on_loops
async def test_pong_behind_a_message_that_nobody_takes() -> None:
    """A slow application is no reason to call the client lost."""
    app = Slow()
    async with serving_app(app) as served, client_of(served) as client:
        connection = await opened(served, client)
        client.send(frame(BINARY, b"first") + frame(BINARY, b"second"))
        await eventually(lambda: connection._buffer, "a message that waits for its turn")
        pings = connection._pings
        assert pings is not None
        pings._ping()
        pings._check()  # as if its time were up
        app.go.set()
        await eventually(lambda: len(app.told) == 2, "both messages")
        assert [message["bytes"] for message in app.told] == [b"first", b"second"]
        assert connection._wire.open
        # Now nothing excuses a client that does not answer.
        pings._check()
        await eventually(lambda: len(app.told) == 3, "the end")
    assert app.told[-1]["code"] == 1011


class Accepts:
    """Accepts with header fields, and closes at once."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": self.headers})
            await send({"type": "websocket.close"})


@on_loops
async def test_application_does_not_set_the_servers_fields() -> None:
    app = Accepts((b"connection", b"close"), (b"upgrade", b"h2c"), (b"x-own", b"kept"))
    async with serving_app(app) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        head = (await client.head()).lower()
    assert head.startswith(b"http/1.1 101 ")
    assert head.count(b"\r\nconnection:") == head.count(b"\r\nupgrade: websocket\r\n") == 1
    assert b"\r\nconnection: upgrade\r\n" in head
    assert b"h2c" not in head
    assert b"\r\nx-own: kept\r\n" in head


@on_loops
async def test_application_does_not_answer_the_handshake_itself() -> None:
    app = Accepts((b"sec-websocket-accept", b"x"))
    async with serving_app(app) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        assert (await client.head()).startswith(b"HTTP/1.1 500 ")


@on_loops
async def test_client_that_does_not_answer_our_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_CLOSE_PATIENCE", 0.02)
    async with serving_app(Accepts()) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        await client.head()
        assert await client.read() == b"\x88\x02\x03\xe8"  # Close 1000, then the end


@on_loops
async def test_application_is_told_that_the_client_has_gone() -> None:
    errors: list[BaseException] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            try:
                await send({"type": "websocket.send", "text": "anybody?"})
            except OSError as error:
                errors.append(error)

    async with serving_app(app) as served:
        async with client_of(served) as client:
            await opened(served, client)
        await eventually(lambda: not served.listener.connections, "the end")
        go.set()
        await eventually(lambda: errors, "the error")


@on_loops
@pytest.mark.parametrize(
    ("status", "fields", "body", "expected"),
    [
        (204, [], b"none", (b"500", b"Internal Server Error\n")),
        (403, [(b"content-length", b"2")], b"none", (b"500", b"Internal Server Error\n")),
        (403, [], b"no", (b"403", b"no")),
    ],
)
async def test_body_of_a_denial_fits_its_head(
    status: int, fields: list[Any], body: bytes, expected: tuple[bytes, bytes]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            kind = "websocket.http.response"
            await receive()
            await send({"type": f"{kind}.start", "status": status, "headers": fields})
            await send({"type": f"{kind}.body", "body": body})

    async with serving_app(app) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        head = await client.head()
        assert (head.split()[1], await client.read()) == expected
