"""How connections end: clients that leave, stall or half-close; and drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Any

import pytest
from support.http import GET, App, HttpClient, client_of, of, serving_app
from support.loops import on_loops
from support.waiting import PATIENCE, eventually

HOLD = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"


# -- clients


@on_loops
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "request_", [of("/wait"), of("/echo", method="PUT", more="Content-Length: 9\r\n") + b"half"]
)
async def test_application_receives_disconnect_when_the_client_goes(
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
async def test_endless_response_ends_when_the_client_goes() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(STREAM)
        await eventually(lambda: app.sent, "the response")
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_client_that_reads_nothing_blocks_the_application_and_times_out() -> None:
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
        (protocol,) = served.handler.service.connections  # type: ignore[attr-defined]
        # The core gives such a client some seconds more to take what waits.
        assert protocol.transport.is_closing()
        client.writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_client_that_reads_slowly_does_not_time_out() -> None:
    app = App()
    async with serving_app(app, idle_timeout=1) as served:
        # Through the kernel's usual buffers output gets on in a few large steps.
        (bound,) = served.listener.sockets
        bound.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await asyncio.get_running_loop().sock_connect(sock, (served.host, served.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
        client = HttpClient(reader, writer)
        client.send(STREAM)
        await client.head()
        # All of this takes twice the idle timeout.
        for _ in range(140):
            assert await asyncio.wait_for(client.reader.read(65536), PATIENCE)
            await asyncio.sleep(0.015)
        assert app.running
        assert served.listener.statistics()["timed_out"] == 0
        writer.transport.abort()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_slow_application_does_not_time_out() -> None:
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
async def test_client_that_stops_sending_its_body_times_out() -> None:
    app = App()
    async with serving_app(app, idle_timeout=0.1) as served, client_of(served) as client:
        client.send(of("/echo", method="PUT", more="Content-Length: 9\r\n") + b"half")
        assert await client.read() == b""
        await eventually(lambda: not app.running, "the end of the request")
        assert app.told == ["http.disconnect"]


@on_loops
async def test_half_closed_client_gets_its_response() -> None:
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
async def test_half_closed_client_is_dropped_after_a_while(monkeypatch: Any) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.protocol.HALF_OPEN", 0.05)
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(of("/wait"))
        client.writer.write_eof()
        assert await client.read() == b""
        await eventually(lambda: not app.running, "the end of the request")
        assert app.told == ["http.disconnect", "ClientGoneError"]


# -- the end of the server


@on_loops
async def test_drain_finishes_responses_and_starts_no_more() -> None:
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
async def test_drain_waits_for_the_rest_of_a_body() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(of("/echo", method="PUT", more="Content-Length: 4\r\n") + b"ab")
        await eventually(lambda: app.taken == 2, "half of the body")
        served.listener.drain()
        client.send(b"cd")
        assert b"\r\nconnection: close\r\n" in await client.head()
        assert await client.read() == b"abcd"


@on_loops
async def test_response_is_cut_off_after_the_drain_timeout(monkeypatch: Any) -> None:
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
async def test_drain_waits_for_background_tasks() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        assert await client.ask(of("/background")) == (200, b"done")
        assert served.listener.drain() == 1
        app.go.set()
        await eventually(lambda: not served.listener.drain(), "the end of the drain")
    assert app.told == ["finished"]


@on_loops
async def test_stop_waits_for_background_tasks_without_a_connection() -> None:
    app = App()
    async with serving_app(app) as served:
        async with client_of(served) as client:
            client.send(of("/background", more="Connection: close\r\n"))
            assert (await client.read()).endswith(b"done")
        await eventually(lambda: not served.listener.connections, "the end of the connection")
        asyncio.get_running_loop().call_later(0.1, app.go.set)
    assert app.told == ["finished"]


@on_loops
async def test_background_tasks_are_cancelled_after_a_while(
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
    assert "that the application left running" in record.message
