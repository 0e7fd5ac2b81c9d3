"""Websockets: served by the application, ended by either side, and by the server."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
from typing import Any

import pytest
from support.foreign import foreign
from support.http import GET, App, client_of, serving_app
from support.loops import on_loops
from support.waiting import PATIENCE, eventually

from fastlisten.handlers.http import HttpHandler

websockets, client_module, exceptions, pytestmark = foreign(
    "websockets", "websockets.asyncio.client", "websockets.exceptions"
)

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Chat(App):
    """Echoes messages; what else it does is in the path."""

    def __init__(self) -> None:
        super().__init__()
        self.scope: dict[str, Any] = {}
        self.open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)
            return
        self.scope = scope
        self.open += 1
        try:
            await self.talk(scope["path"], receive, send)
        finally:
            self.open -= 1

    async def talk(self, path: str, receive: Any, send: Any) -> None:
        self.told.append((await receive())["type"])
        if path == "/refused":
            await send({"type": "websocket.close"})
            return
        if path == "/fails":
            raise ValueError("before")
        if path == "/silent":
            return
        if path == "/late":
            await self.go.wait()
        await send({"type": "websocket.accept"})
        if path == "/breaks":
            raise ValueError("after")
        if path == "/exits":
            raise SystemExit(3)
        if path == "/cancels":
            raise asyncio.CancelledError
        while path == "/floods":
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            self.sent += 1
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.told.append((message["type"], message["code"]))


def connect(served: Any, path: str = "/chat", **options: Any) -> Any:
    scheme = "ws" if served.client_context is None else "wss"
    url = f"{scheme}://{served.host}:{served.port}{path}"
    if served.client_context is not None:
        options["ssl"] = served.client_context
    return client_module.connect(url, proxy=None, max_size=None, **options)


@on_loops
@pytest.mark.parametrize("tls", [None, "implicit"])
async def test_messages_are_echoed(tls: Any) -> None:
    app = Chat()
    async with serving_app(app, tls=tls, idle_timeout=0.1) as served:
        async with connect(served, "/chat?x=y") as client:
            for message in ("text", b"bytes", b"x" * (2 << 20), ""):
                await client.send(message)
                assert await asyncio.wait_for(client.recv(), PATIENCE) == message
            assert app.scope["client"] == client.transport.get_extra_info("sockname")
            assert app.scope["server"] == (served.host, served.port)
            assert app.scope["scheme"] == ("wss" if tls else "ws")
            assert app.scope["query_string"] == b"x=y"
            assert app.scope["state"] == {"key": "value"}
            # Silence is no reason to end one.
            await asyncio.sleep(0.3)
            await client.send("still")
            assert await asyncio.wait_for(client.recv(), PATIENCE) == "still"
        await eventually(lambda: not app.open, "the end of the application")
    assert app.told == ["websocket.connect", ("websocket.disconnect", 1000)]


@on_loops
@pytest.mark.parametrize(("path", "status"), [("/refused", 403), ("/fails", 500), ("/silent", 500)])
async def test_refused_handshake_gets_its_status(
    path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")
    async with serving_app(Chat()) as served:
        with pytest.raises(exceptions.InvalidStatus) as caught:
            await connect(served, path)
        assert caught.value.response.status_code == status
    lines = [record.message for record in caplog.records if record.levelname == "INFO"]
    assert [line.partition(' "websocket')[2] for line in lines] == [f' {path}" {status}']
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == (status == 500)


@on_loops
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([{"status": 401, "headers": [(b"x", b"y")]}, {"body": b"no"}], (401, b"no")),
        ([{"status": 401}, {}], (401, b"")),
        ([{"status": 204}, {"body": b""}], (204, b"")),
        ([{"status": 200}, {"body": b"a", "more_body": True}, {"body": b"b"}], (200, b"ab")),
        ([{"status": 401}, ValueError()], (500, b"Internal Server Error\n")),
        ([{"status": 401}], (500, b"Internal Server Error\n")),
        ([{"status": 42}], (500, b"Internal Server Error\n")),
        ([{"status": 401, "headers": [(b"a b", b"")]}], (500, b"Internal Server Error\n")),
        ([{"status": 401}, {"body": b"a", "more_body": True}, ValueError()], (401, b"a")),
    ],
)
async def test_denial_response_is_sent(script: list[Any], expected: tuple[int, bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await App()(scope, receive, send)
            return
        assert scope["extensions"] == {"websocket.http.response": {}}
        await receive()
        kind = "start"
        for step in script:
            if isinstance(step, Exception):
                raise step
            await send({"type": f"websocket.http.response.{kind}"} | step)
            kind = "body"

    async with serving_app(app) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        answer = await client.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (int(head[9:12]), body) == expected
    assert b"\r\nconnection: close" in head
    assert (b"content-length" in head) == (len(script) < 3 and expected[0] != 204)


@on_loops
async def test_subprotocol_and_fields_of_the_accept_are_sent() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await App()(scope, receive, send)
            return
        await receive()
        chosen = scope["subprotocols"][-1] if scope["path"] == "/ok" else "other"
        headers = [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")]
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
        await send({"type": "websocket.close", "code": 4000, "reason": "why"})

    async with serving_app(app) as served:
        async with connect(served, "/ok", subprotocols=["one", "two"]) as client:
            assert client.subprotocol == "two"
            assert client.response.headers.get_all("set-cookie") == ["a", "b"]
            with pytest.raises(exceptions.ConnectionClosedError):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4000, "why")
        with pytest.raises(exceptions.InvalidStatus) as caught:
            await connect(served, "/not", subprotocols=["one"])
        assert caught.value.response.status_code == 500


@on_loops
@pytest.mark.parametrize("path", ["/breaks", "/exits", "/cancels"])
async def test_exception_closes_with_1011(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")
    async with serving_app(Chat()) as served, connect(served, path) as client:
        with pytest.raises(exceptions.ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1011
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert f'"websocket {path}" 101' in caplog.records[0].message
    assert f'"websocket {path}": the application failed' in caplog.records[1].message


@on_loops
async def test_drain_closes_with_1012() -> None:
    app = Chat()
    async with serving_app(app) as served:
        late = asyncio.create_task(connect(served, "/late").__aenter__())
        async with connect(served) as client:
            await eventually(lambda: app.open == 2, "the websockets")
            served.listener.drain()
            with pytest.raises(exceptions.ConnectionClosedError):
                await client.recv()
            assert client.close_code == 1012
            with pytest.raises(exceptions.InvalidStatus):
                await late
            app.go.set()
            await eventually(lambda: not served.listener.drain(), "the end of the drain")
        await eventually(lambda: not app.open, "the ends of the application")
    assert ("websocket.disconnect", 1012) in app.told


@on_loops
async def test_handshake_during_a_drain_is_503() -> None:
    """Nobody would tell it later: on a connection whose TLS has taken long, as an example."""
    app = Chat()
    async with serving_app(app) as served, client_of(served) as client:
        handler = served.handler
        assert isinstance(handler, HttpHandler)
        handler.drain()
        client.send(HANDSHAKE)
        assert (await client.head()).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: not app.open, "the end of the application")


@on_loops
async def test_client_that_vanishes_is_1006() -> None:
    app = Chat()
    async with serving_app(app) as served:
        client = await connect(served)
        client.transport.abort()
        await eventually(lambda: not app.open, "the end of the application")
    assert app.told == ["websocket.connect", ("websocket.disconnect", 1006)]


@on_loops
async def test_client_that_does_not_read_times_out() -> None:
    app = Chat()
    async with serving_app(app, idle_timeout=0.2) as served, client_of(served) as client:
        client.read_nothing()
        client.send(HANDSHAKE.replace(b"/chat", b"/floods"))
        await eventually(lambda: served.listener.statistics()["timed_out"], "the end of patience")
        client.writer.transport.abort()
        await eventually(lambda: not app.open, "the end of the application")


@on_loops
async def test_message_above_the_limit_closes_with_1009() -> None:
    nothing = {"max_body_size": 0}
    async with serving_app(Chat(), options=nothing) as served, connect(served) as client:
        await client.send(b"x")
        with pytest.raises(exceptions.ConnectionClosedError):
            await client.recv()
    options = {"max_body_size": 1000}
    async with serving_app(Chat(), options=options) as served, connect(served) as client:
        await client.send(b"x" * 1000)
        assert len(await client.recv()) == 1000
        await client.send(b"x" * 1001)
        with pytest.raises(exceptions.ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1009


#: Handshakes that are none, and the status that they are answered by.
BAD: dict[str, tuple[bytes, int]] = {
    "no key": (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X"), 400),
    "another version": (HANDSHAKE.replace(b"Version: 13", b"Version: 99"), 400),
    "POST": (HANDSHAKE.replace(b"GET", b"POST"), 405),
    "many fields": (HANDSHAKE[:-2] + b"X: y\r\n" * 260 + b"\r\n", 431),
    "a long field": (HANDSHAKE[:-2] + b"Cookie: " + b"x" * 65536 + b"\r\n\r\n", 431),
    "a long target": (HANDSHAKE.replace(b"/chat", b"/" + b"x" * 65536), 431),
    "frames before the answer": (HANDSHAKE + b"\x81\x80early", 400),
    "a body": (HANDSHAKE[:-2] + b"Content-Length: 3\r\n\r\nabc", 400),
}


@on_loops
@pytest.mark.parametrize("name", BAD)
async def test_invalid_handshake_is_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handshake, status = BAD[name]
    app = Chat()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(handshake)
        answer = await client.read()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert not app.open
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("fastlisten.http", "INFO")
    assert f" {status}" in record.message


@on_loops
async def test_http_1_0_handshake_is_a_plain_request() -> None:
    async with serving_app(Chat()) as served, client_of(served) as client:
        client.send(HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await client.read()).startswith(b"HTTP/1.1 200 OK\r\n")


@on_loops
async def test_malformed_frames_close_with_1002(caplog: pytest.LogCaptureFixture) -> None:
    app = Chat()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(HANDSHAKE)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        client.send(b"\xff" * 64)
        # A close frame with 1002, protocol error.
        assert (await client.read())[:4][2:] == b"\x03\xea"
        await eventually(lambda: not app.open, "the end of the application")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_handshake_without_the_library_is_a_plain_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for a websocket is served as any other."""

    async def test() -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "websockets" else find(name)
        )
        async with serving_app(App()) as served, client_of(served) as client:
            assert (await client.ask(HANDSHAKE))[0] == 200
            assert (await client.ask(GET))[0] == 200

    asyncio.run(test())


def test_handler_imports_without_the_library() -> None:
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "import fastlisten.handlers.http.protocol\n"
        "import fastlisten.handlers.http.service\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
