"""Clients that reset their connection, in every state of it: nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from support.http import GET, App, client_of, of, serving_app
from support.loops import on_loops
from support.waiting import eventually

WEBSOCKET = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CHUNKED = of("/echo", method="POST", more="Transfer-Encoding: chunked\r\n")

#: What the client has sent when it goes.
STATES = {
    "nothing": b"",
    "half a head": GET[:-1],
    "a request": GET,
    "pipelined requests": GET * 50,
    "half a body": of("/echo", method="POST", more="Content-Length: 500\r\n") + b"ab",
    "half a chunk": CHUNKED + b"5\r\nab",
    "half a trailer": CHUNKED + b"0\r\nx: ",
    "a request that waits": of("/hold"),
    "requests behind one that waits": of("/hold") + GET * 50,
    "an endless response": of("/stream"),
    "a refused request": b"nonsense\r\n\r\n",
    "a refused body": of("/echo", method="POST", more="Content-Length: 99999999999\r\n"),
    "a handshake": WEBSOCKET,
    "a handshake and half a frame": WEBSOCKET + b"\x81\xfe\x01",
}


@on_loops
@pytest.mark.parametrize("state", STATES)
async def test_reset_leaves_nothing_behind(state: str, descriptors_back: None) -> None:
    app = App()
    async with serving_app(app) as served:
        for wait in (False, True) * 5:
            _, writer = await asyncio.open_connection(served.host, served.port)
            writer.write(STATES[state])
            if wait:
                # Another client is answered meanwhile.
                async with client_of(served) as client:
                    assert (await client.ask(GET))[0] == 200
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await eventually(lambda: not served.listener.connections, "the end of the connections")
        service = served.handler.service  # type: ignore[attr-defined]
        await eventually(lambda: not service.connections, "the end of the protocols")
        app.go.set()
        await eventually(lambda: not service.tasks, "the end of the requests")
        assert served.listener.statistics()["accepted"] == 15
