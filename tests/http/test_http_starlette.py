"""A Starlette application: routing, uploads, streaming, and clients that leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.foreign import foreign
from support.http import client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually

(
    applications,
    background,
    middleware,
    base,
    requests,
    responses,
    routing,
    pytestmark,
) = foreign(
    "starlette.applications",
    "starlette.background",
    "starlette.middleware",
    "starlette.middleware.base",
    "starlette.requests",
    "starlette.responses",
    "starlette.routing",
)


class RecordingApp:
    """A starlette application, with and without middleware that runs handlers in tasks.

    Attributes:
        events: what happened, in order.
    """

    def __init__(self, tasks: bool) -> None:
        self.events: list[str] = []
        more = [middleware.Middleware(base.BaseHTTPMiddleware, dispatch=self.dispatch)] * tasks
        paths = (self.upload, self.stream, self.later, self.fail)
        routes = [
            routing.Route(f"/{path.__name__}", path, methods=["GET", "PUT"]) for path in paths
        ]
        self.app = applications.Starlette(routes=routes, middleware=more)

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def upload(self, request: Any) -> Any:
        self.events.append("upload")
        try:
            size = 0
            async for piece in request.stream():
                size += len(piece)
        except requests.ClientDisconnect:
            self.events.append("gone")
            raise
        return responses.PlainTextResponse(str(size))

    async def stream(self, request: Any) -> Any:
        return responses.StreamingResponse(self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
                await asyncio.sleep(0)
        finally:
            self.events.append("ended")

    async def later(self, request: Any) -> Any:
        async def task() -> None:
            await asyncio.sleep(0.02)
            self.events.append("done")

        return responses.PlainTextResponse("soon", background=background.BackgroundTask(task))

    async def fail(self, request: Any) -> Any:
        raise ValueError("broken")


@on_loops
@pytest.mark.parametrize("tasks", [False, True])
async def test_starlette_application_is_served(
    tasks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recording = RecordingApp(tasks)
    async with serving_app(recording.app) as served, client_of(served) as client:
        request = b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
        assert await client.ask(request + bytes(300_000)) == (200, b"300000")
        assert await client.ask(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n") == (200, b"soon")
        assert (await client.ask(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 404
        assert (await client.ask(b"POST /none HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 404
        assert not caplog.records
        assert (await client.ask(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 500
    assert recording.events == ["upload", "done"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@on_loops
@pytest.mark.parametrize("tasks", [False, True])
async def test_starlette_notices_clients_that_go(
    tasks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")
    recording = RecordingApp(tasks)
    async with serving_app(recording.app) as served:
        async with client_of(served) as client:
            client.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\nhalf")
            await eventually(lambda: recording.events, "the request")
        await eventually(lambda: not served.listener.connections, "the end of the connection")
        async with client_of(served) as client:
            client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        await eventually(lambda: recording.events[-1] == "ended", "the end of the stream")
    assert recording.events == ["upload", "gone", "ended"]
    assert {record.levelname for record in caplog.records} == {"INFO"}
