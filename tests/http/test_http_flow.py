"""A client that reads nothing: the application waits, and no memory fills up."""

from __future__ import annotations

import asyncio

from support.http import App, client_of, of, serving_app
from support.loops import on_loops
from support.waiting import eventually


@on_loops
async def test_an_application_that_sends_without_end_is_held_back() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.read_nothing()
        client.send(of("/stream"))
        await eventually(lambda: app.sent, "the first piece")
        before = -1
        while app.sent != before:
            before = app.sent
            assert before < 64 << 20
            for _ in range(200):
                await asyncio.sleep(0)
        # The client has gone, and the application hears it when it sends on.
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")
