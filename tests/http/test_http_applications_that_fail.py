"""Applications that raise, exit, never wait or send invalid responses: what clients get."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from support.http import GET, App, client_of, of, serving_app
from support.loops import on_loops
from support.waiting import eventually


@on_loops
async def test_exception_or_no_response_is_answered_by_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_app(App()) as served:
        for path in ("/fail", "/nothing"):
            async with client_of(served) as client:
                assert await client.ask(of(path)) == (500, b"Internal Server Error\n")
                assert await client.read() == b""
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.name for record in errors] == ["fastlisten.http"] * 2
    assert '"GET /fail HTTP/1.1": the application failed' in errors[0].message
    assert errors[0].exc_info
    assert "returned without a complete response" in errors[1].message


@on_loops
async def test_exception_within_a_response_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
async def test_invalid_response_is_answered_by_500(
    start: dict[str, Any], body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200} | start)
        await send({"type": "http.response.body", "body": body or b""})

    async with serving_app(app) as served, client_of(served) as client:
        client.send(GET)
        answer = await client.read()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"b: c" not in answer
    assert any("ResponseError" in str(record.exc_info) for record in caplog.records)


@on_loops
async def test_exception_after_the_response_is_only_logged(
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
async def test_message_after_the_response_is_logged_once(
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
async def test_invalid_status_is_answered_and_logged_as_500(
    status: Any, caplog: pytest.LogCaptureFixture
) -> None:
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
async def test_system_exit_and_cancellation_are_answered_by_500(
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
async def test_application_that_never_waits_does_not_block_other_clients(
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
        await eventually(lambda: not served.handler.service.tasks, "the end")  # type: ignore[attr-defined]
