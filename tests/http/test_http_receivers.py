"""Applications that receive in several tasks: all of them are told what there is to tell.

Frameworks do that: one task reads the body or messages, another waits for the disconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.http import client_of, of, serving_app
from support.loops import on_loops
from support.waiting import eventually

HANDSHAKE = of(
    "/",
    more="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)


class Receivers:
    """An application with three receivers, one of which is cancelled while it waits."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waiting = False

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        tasks = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks.pop(1).cancel()
        await asyncio.sleep(0)
        self.waiting = True
        self.told = [message["type"] for message in await asyncio.gather(*tasks)]


@on_loops
@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (of("/", method="PUT", more="Content-Length: 5\r\n"), "http.disconnect"),
        (HANDSHAKE, "websocket.disconnect"),
    ],
)
async def test_disconnect_reaches_every_task_that_receives(request_: bytes, kind: str) -> None:
    app = Receivers()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(request_)
        await eventually(lambda: app.waiting, "the receivers")
        client.writer.transport.abort()
        await eventually(lambda: app.told, "the disconnect")
    assert app.told == [kind, kind]
