"""Requests whose task is cancelled before its first step: answered and forgotten as others are.

asyncio throws the cancellation into a coroutine that has not begun, so that none of its code runs.
An application does that by cancelling all tasks, or with a task factory, as here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from support.http import APP, GET, client_of, of, serving_app
from support.loops import on_loops
from support.waiting import PATIENCE

WEBSOCKET = of(
    "/chat",
    more="Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)


def cancelled(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Return a task that will never take a step."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    task.cancel()
    return task


@on_loops
@pytest.mark.parametrize("request_", [GET, WEBSOCKET], ids=["request", "websocket"])
async def test_request_whose_task_never_starts_gets_500(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")
    loop = asyncio.get_running_loop()
    async with serving_app(APP) as served, client_of(served) as client:
        loop.set_task_factory(cancelled)  # type: ignore[arg-type]
        try:
            client.send(request_)
            async with asyncio.timeout(PATIENCE):
                response = await client.reader.read()
        finally:
            loop.set_task_factory(None)
        assert response.startswith(b"HTTP/1.1 500 ")
        assert not served.handler.service.tasks  # type: ignore[attr-defined]
        async with client_of(served) as other:
            assert (await other.ask(GET))[0] == 200
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "INFO"]
