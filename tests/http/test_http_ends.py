"""How connections end: clients that go, read nothing or wait; applications that fail; drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Any

import pytest
from support.http import GET, App, HttpClient, client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually

HOLD = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"


def of(path: str, *, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode()


# -- clients


@on_loops
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "request_", [of("/wait"), of("/echo", method="PUT", more="Content-Length: 9\r\n") + b"half"]
)
async def test_an_application_is_told_that_the_client_has_gone(
    reset: bool, request_: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.protocol.HALF_OPEN", 0.05)
    caplog.set_level(logging.INFO, "fastlisten.http")
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(request_)
        await eventually(lambda: app.running, "the request")
        if reset:
            sock: socket.socket = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")
    sends = b"/wait" in request_
    assert app.told == ["http.disconnect"] + ["ClientGoneError"] * sends
    # It is nobody's fault.
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert any("the client has gone" in record.message for record in caplog.records)


@on_loops
async def test_an_endless_response_ends_with_its_client() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(STREAM)
        await eventually(lambda: app.sent, "the response")
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_a_client_that_reads_nothing_stops_the_application_and_is_ended() -> None:
    app = App()
    async with serving_app(app, idle_timeout=0.3) as served, client_of(served) as client:
        client.read_nothing()
        client.send(STREAM)
        await eventually(lambda: app.sent, "the response")
        sent = -1
        while sent != app.sent:
            sent = app.sent
            await asyncio.sleep(0.05)
        await eventually(lambda: served.listener.statistics()["timed_out"], "the end of patience")
        (protocol,) = served.handler.service.state.connections  # type: ignore[attr-defined]
        # The core gives such a client some seconds more to take what waits.
        assert protocol.transport.is_closing()
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_a_client_that_reads_slowly_is_not_ended() -> None:
    async with serving_app(App(), idle_timeout=0.3) as served:
        async with client_of(served, limit=65536) as client:
            # More than the kernel takes at once.
            client.send(of("/stream?120"))
            await client.head()
            size = 0
            while size < 120 * 65536:
                size += len(await asyncio.wait_for(client.reader.read(1 << 20), 10))
                await asyncio.sleep(0.01)
        assert served.listener.statistics()["timed_out"] == 0


@on_loops
async def test_an_application_that_thinks_is_waited_for() -> None:
    app = App()
    async with serving_app(app, idle_timeout=0.1) as served, client_of(served) as client:
        client.send(HOLD)
        await asyncio.sleep(0.5)
        assert served.listener.statistics()["timed_out"] == 0
        app.go.set()
        assert await client.response() == (200, b"held")
        assert await client.read() == b""
        assert served.listener.statistics()["timed_out"] == 1


@on_loops
async def test_a_client_that_does_not_send_its_body_is_not() -> None:
    app = App()
    async with serving_app(app, idle_timeout=0.1) as served, client_of(served) as client:
        client.send(of("/echo", method="PUT", more="Content-Length: 9\r\n") + b"half")
        assert await client.read() == b""
        await eventually(lambda: not app.running, "the end of the request")
        assert app.told == ["http.disconnect"]


@on_loops
async def test_a_client_that_has_ended_its_half_gets_its_response() -> None:
    app = App()
    async with serving_app(app) as served:
        for request in (GET, HOLD):
            async with client_of(served) as client:
                client.send(request)
                client.writer.write_eof()
                if request is HOLD:
                    await eventually(lambda: app.running, "the request")
                    app.go.set()
                assert (await client.response())[0] == 200
                assert await client.read() == b""
        async with client_of(served) as client:
            client.send(GET[:-3])
            client.writer.write_eof()
            assert await client.read() == b""


@on_loops
async def test_one_that_waits_too_long_after_that_has_gone(monkeypatch: Any) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.protocol.HALF_OPEN", 0.05)
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(of("/wait"))
        client.writer.write_eof()
        assert await client.read() == b""
        await eventually(lambda: not app.running, "the end of the request")
        assert app.told == ["http.disconnect", "ClientGoneError"]


# -- applications


@on_loops
async def test_an_application_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App()) as served:
        for path in ("/fail", "/nothing"):
            async with client_of(served) as client:
                assert await client.ask(of(path)) == (500, b"Internal Server Error\n")
                assert await client.read() == b""
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.name for record in errors] == ["fastlisten.http"] * 2
    assert '"GET /fail HTTP/1.1": the application failed' in errors[0].message
    assert errors[0].exc_info
    assert "ended without a whole response" in errors[1].message


@on_loops
async def test_one_that_fails_in_the_middle(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        client.send(of("/half"))
        await client.head()
        # Without the last chunk: the client sees that something is missing.
        assert await client.read() == b"4\r\nhalf\r\n"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@on_loops
@pytest.mark.parametrize(
    ("start", "body"),
    [
        ({"headers": [(b"bad name", b"x")]}, None),
        ({"headers": [(b"x", b"a\r\nb: c")]}, None),
        ({"headers": [(b"content-length", b"5")]}, b"toolong"),
        ({"headers": [(b"content-length", b"5")]}, b"shor"),
    ],
)
async def test_responses_that_are_none(
    start: dict[str, Any], body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200} | start)
        await send({"type": "http.response.body", "body": body or b""})

    async with serving_app(app) as served, client_of(served) as client:
        client.send(GET)
        answer = await client.read()
    if body is None:
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"b: c" not in answer
    else:
        assert len(answer.partition(b"\r\n\r\n")[2]) < 5
    assert any("LocalProtocolError" in str(record.exc_info) for record in caplog.records)


@on_loops
async def test_what_fails_after_the_response_is_logged_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        raise ValueError("too late")

    async with serving_app(app) as served, client_of(served) as client:
        for _ in range(2):
            client.send(GET)
            assert (await client.head()).startswith(b"HTTP/1.1 204 No Content\r\n")
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2


@on_loops
async def test_messages_after_a_response_are_an_error_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await App().answer(send, b"whole")
        await send({"type": "http.response.body", "body": b"more"})

    async with serving_app(app, options={"lifespan": "off"}) as served, client_of(served) as client:
        client.send(GET * 3)
        for _ in range(3):
            assert await client.response() == (200, b"whole")
        await eventually(lambda: len(caplog.records) == 3, "the errors")
        assert served.listener.drain() == 0 or await client.read() == b""
    assert {record.levelname for record in caplog.records} == {"ERROR"}


@on_loops
@pytest.mark.parametrize("status", [99, 199, 600, 1000, "200"])
async def test_statuses_that_are_none(status: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body"})

    async with serving_app(app) as served, client_of(served) as client:
        assert await client.ask(GET) == (500, b"Internal Server Error\n")
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.records[1].message.endswith('" 500 0')


@on_loops
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("", [SystemExit()]),
    ],
)
async def test_an_application_that_ends_itself(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one request that fails; neither the server nor the log is silent about it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            raise error

    caplog.set_level(logging.INFO, "fastlisten.http")
    async with serving_app(app) as served, client_of(served) as client:
        assert await client.ask(GET) == (500, b"Internal Server Error\n")
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.records[1].message.endswith('" 500 0')


@on_loops
async def test_an_application_that_never_waits_lets_others_have_their_turn(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.protocol.HALF_OPEN", 0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] != "/endless":
            await App()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200})
        while True:
            # Nothing, so that the kernel always takes it.
            await send({"type": "http.response.body", "body": b"", "more_body": True})

    async with serving_app(app) as served:
        async with client_of(served) as client, client_of(served) as other:
            client.send(of("/endless"))
            await client.head()
            assert (await other.ask(GET))[0] == 200
        await eventually(lambda: not served.handler.service.state.tasks, "the end")  # type: ignore[attr-defined]


# -- the end of the server


@on_loops
async def test_a_drain_finishes_responses_and_no_more() -> None:
    app = App()
    async with (
        serving_app(app) as served,
        client_of(served) as idle,
        client_of(served) as silent,
        client_of(served) as partial,
        client_of(served) as busy,
        client_of(served) as streaming,
    ):
        assert (await idle.ask(GET))[0] == 200
        partial.send(GET[:-1])
        busy.send(HOLD + GET)
        streaming.send(of("/pieces"))
        assert b"connection" not in (await streaming.head()).lower()
        await eventually(lambda: sorted(app.running) == ["/hold", "/pieces"], "the requests")
        assert served.listener.drain() > 0
        for client in (idle, silent):
            assert await client.read() == b""
        assert (await partial.read()).startswith(b"HTTP/1.1 503 ")
        assert served.listener.drain() == 2
        app.go.set()
        assert b"\r\nconnection: close\r\n" in await busy.head()
        # The request that was pipelined is not answered.
        assert await busy.read() == b"held"
        assert (await streaming.read()).endswith(b"\r\n4\r\nlast\r\n0\r\n\r\n")
        await eventually(lambda: not served.listener.drain(), "the end of the drain")
    assert len(app.seen) == 3


@on_loops
async def test_a_body_may_come_to_its_end_in_a_drain() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(of("/echo", method="PUT", more="Content-Length: 4\r\n") + b"ab")
        await eventually(lambda: app.taken == 2, "half of the body")
        served.listener.drain()
        client.send(b"cd")
        assert b"\r\nconnection: close\r\n" in await client.head()
        assert await client.read() == b"abcd"


@on_loops
async def test_what_does_not_end_is_cut(monkeypatch: Any) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.handler._TASK_PATIENCE", 0.1)
    app = App()
    async with serving_app(app, drain_timeout=0.1) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        client = HttpClient(reader, writer)
        client.send(of("/pieces"))
        await client.head()
    with contextlib.suppress(ConnectionResetError):
        assert b"last" not in await client.read()
    writer.close()


@on_loops
async def test_a_drain_waits_for_what_runs_after_a_response() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        assert await client.ask(of("/background")) == (200, b"done")
        assert served.listener.drain() == 1
        app.go.set()
        await eventually(lambda: not served.listener.drain(), "the end of the drain")
    assert app.told == ["finished"]


@on_loops
async def test_tasks_that_outlive_their_connections_are_waited_for() -> None:
    app = App()
    async with serving_app(app) as served:
        async with client_of(served) as client:
            client.send(of("/background", more="Connection: close\r\n"))
            assert (await client.read()).endswith(b"done")
        await eventually(lambda: not served.listener.connections, "the end of the connection")
        asyncio.get_running_loop().call_later(0.1, app.go.set)
    assert app.told == ["finished"]


@on_loops
async def test_and_cancelled_when_they_do_not_end(
    monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.handler._TASK_PATIENCE", 0.1)
    app = App()
    async with (
        serving_app(app, drain_timeout=0.05) as served,
        client_of(served) as client,
        client_of(served) as other,
    ):
        client.send(of("/background"))
        assert (await client.response())[1] == b"done"
        other.send(HOLD)
        await eventually(lambda: len(app.running) == 2, "both")
    assert app.told == []
    assert app.running == []
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "cancelling what the application still does" in record.message
