"""What the tests of http share: an application, the handler around it, and clients of raw bytes.

Rules of this file: no test in it. The application answers by path; what a test waits for has a
name in it. Clients read with the patience of `serving`, so that only failures wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any, cast

from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.http import HttpHandler
from fastlisten.testing import Served, serve
from support.waiting import PATIENCE

GET = b"GET /who HTTP/1.1\r\nHost: example.org\r\n\r\n"
BYE = b"GET /who HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"


class App:
    """An ASGI application.

    Attributes:
        running: requests that are being answered, by path; of streams, bytes sent so far.
        seen: the scopes of all requests.
        told: the messages that `receive` returned to ``/wait``, and errors that `send` raised.
        go: lets ``/hold`` respond.
    """

    def __init__(self) -> None:
        self.running: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.told: list[Any] = []
        self.events: list[str] = []
        self.go = asyncio.Event()
        self.sent = 0
        self.taken = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        self.seen.append(scope)
        self.running.append(scope["path"])
        try:
            name = scope["path"].strip("/").partition("/")[0] or "who"
            await getattr(self, name, self.who)(scope, receive, send)
        finally:
            self.running.remove(scope["path"])

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.events.append("startup")
        scope["state"]["key"] = "value"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.events.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, send: Any, body: bytes, status: int = 200) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def body(self, receive: Any) -> bytes:
        whole, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.told.append(message["type"])
                raise ConnectionResetError("gone")
            whole += message.get("body", b"")
            self.taken = len(whole)
            more = message.get("more_body", False)
        return whole

    async def who(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with a description of the request."""
        keys = ("client", "server", "scheme", "path", "method", "http_version", "state", "asgi")
        told = {key: scope[key] for key in keys}
        told["query"] = scope["query_string"].decode()
        told["headers"] = [[a.decode("latin-1"), b.decode("latin-1")] for a, b in scope["headers"]]
        await self.answer(send, json.dumps(told).encode())

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with the request's body."""
        await self.answer(send, await self.body(receive))

    async def hold(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond once `go` is set."""
        await self.go.wait()
        await self.answer(send, b"held")

    async def early(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond without reading the body."""
        await self.answer(send, b"early", 401)

    async def wait(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond after the client has disconnected."""
        await self.body(receive)
        self.told.append((await receive())["type"])
        try:
            await self.answer(send, b"too late")
        except OSError as error:
            self.told.append(type(error).__name__)
            raise

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Send pieces of 64 KiB: the number in the query, or endlessly many."""
        count = int(scope["query_string"] or b"1000000")
        self.sent = 0
        await send({"type": "http.response.start", "status": 200})
        for _ in range(count):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            self.sent += 65536
        await send({"type": "http.response.body", "body": b""})

    async def pieces(self, scope: Any, receive: Any, send: Any) -> None:
        """Send a piece, and the last one once `go` is set."""
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async def fail(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the application is broken")

    async def half(self, scope: Any, receive: Any, send: Any) -> None:
        """Fail in the middle of a response."""
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("the application is broken")

    async def nothing(self, scope: Any, receive: Any, send: Any) -> None:
        """Return without a response."""

    async def background(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond, then keep running until `go` is set."""
        await self.answer(send, b"done")
        await self.go.wait()
        self.told.append("finished")


#: For configurations: ``app = "support.http:APP"``.
APP = App()


def handler_of(app: Any, **options: Any) -> HttpHandler:
    """Return a handler for an application; options are written with _ instead of -."""
    settings = HandlerSettings(
        listener="web",
        protocol="http",
        hostname="mx.example.org",
        options={key.replace("_", "-"): value for key, value in options.items()},
        extra={"app": app},
    )
    return HttpHandler(settings)


class HttpClient:
    """A client that writes bytes and reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def read_nothing(self) -> None:
        """Stop reading, so that input stays in the kernel."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    async def read(self) -> bytes:
        """Return everything up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    async def head(self) -> bytes:
        """Return a head."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    async def response(self) -> tuple[int, bytes]:
        """Return status and body of a response that has Content-Length or is chunked."""
        head = await self.head()
        if found := re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE):
            body = await asyncio.wait_for(self.reader.readexactly(int(found[1])), PATIENCE)
        else:
            assert b"\r\ntransfer-encoding: chunked\r\n" in head.lower(), head
            body = await self.chunks()
        return int(head[9:12]), body

    async def chunks(self) -> bytes:
        whole = b""
        while size := int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), PATIENCE), 16):
            whole += await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return whole

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.send(data)
        return await self.response()


@contextlib.asynccontextmanager
async def client_of(served: Served, **options: Any) -> AsyncIterator[HttpClient]:
    """Connect; abort the connection at the end of the block."""
    if served.client_context is not None:
        options["ssl"] = served.client_context
    reader, writer = await asyncio.open_connection(served.host, served.port, **options)
    try:
        yield HttpClient(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serving_app(
    app: Any, *, options: dict[str, Any] | None = None, **serve_options: Any
) -> AsyncIterator[Served]:
    """Serve an application; check that no connections and tasks are left after the block."""
    handler = handler_of(app, **(options or {}))
    async with serve(handler, **serve_options) as served:
        yield served
        service = handler.service
    assert not service.connections
    assert not service.tasks
    assert not served.listener.connections


def of(path: str, *, method: str = "GET", more: str = "") -> bytes:
    """Return a request."""
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode()
