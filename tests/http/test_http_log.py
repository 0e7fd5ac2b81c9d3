"""The access log: one line per request, whatever the client sends."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.http import BYE, GET, App, HttpClient, client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually

from fastlisten.log_throttle import MAX_RECORDS


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.http")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.name for record in caplog.records} <= {"fastlisten.http"}
    return [record.getMessage() for record in caplog.records if record.levelname == "INFO"]


def port_of(client: HttpClient) -> int:
    port: int = client.writer.get_extra_info("sockname")[1]
    return port


@on_loops
async def test_each_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        await client.ask(b"POST /echo?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        await client.ask(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.ask(b"GET /stream?2 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.send(b"HEAD /early HTTP/1.0\r\n\r\n")
        await client.read()
        name = f'listener "test": [127.0.0.1]:{port_of(client)}'
    assert lines(caplog) == [
        f'{name} "POST /echo?a=b HTTP/1.1" 200 3',
        f'{name} "GET /early HTTP/1.1" 401 5',
        f'{name} "GET /stream?2 HTTP/1.1" 200 131072',
        f'{name} "HEAD /early HTTP/1.0" 401 0',
    ]


@on_loops
async def test_refused_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App(), options={"max_body_size": 1}) as served:
        chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for request in (
            b"nonsense\r\n\r\n",
            chunked + b"2\r\nab\r\n",
            GET.replace(b"who", b"fail"),
        ):
            async with client_of(served) as client:
                client.send(request)
                await client.read()
    found = [line.rpartition('" ')[2] for line in lines(caplog) if " raised " not in line]
    assert found == ["400 0", "413 0", "500 0"]


@on_loops
async def test_secrets_in_the_query_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    hidden = {
        "/?access_token=quiet": "/?access_token=***",
        "/?a=b&Password=quiet&c=d": "/?a=b&Password=***&c=d",
        "/?x-api-key=quiet&user=me": "/?x-api-key=***&user=me",
        "/?a;client_secret=quiet": "/?a;client_secret=***",
        "/token=x?a=token": "/token=x?a=token",
        "/?" + "token" * 200: "/?" + "token" * 200,
    }
    async with serving_app(App()) as served, client_of(served) as client:
        for target in hidden:
            await client.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert [line.split('"')[3].split()[1] for line in lines(caplog)] == list(hidden.values())
    assert [vars(one)["fields"]["target"] for one in caplog.records] == list(hidden.values())
    assert "quiet" not in caplog.text


@on_loops
async def test_hostile_target_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    targets = ['/a"_200_0"', "/%0d%0aGET", "/\\x0a\\", "/?\"'", "/" + "x" * 5000, "/%1b[2J"]
    async with serving_app(App()) as served, client_of(served) as client:
        for target in targets:
            await client.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await client.ask(b"M" * 60 + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    shown = [line.partition(f'{port_of(client)} "')[2] for line in lines(caplog)]
    assert shown == [
        'GET /a%22_200_0%22 HTTP/1.1" 200 ' + shown[0].rpartition(" ")[2],
        'GET /%0d%0aGET HTTP/1.1" 200 ' + shown[1].rpartition(" ")[2],
        'GET /\\x0a\\ HTTP/1.1" 200 ' + shown[2].rpartition(" ")[2],
        "GET /?%22' HTTP/1.1\" 200 " + shown[3].rpartition(" ")[2],
        "GET /" + "x" * 1023 + '... HTTP/1.1" 200 ' + shown[4].rpartition(" ")[2],
        'GET /%1b[2J HTTP/1.1" 200 ' + shown[5].rpartition(" ")[2],
        "M" * 40 + ' / HTTP/1.1" 200 ' + shown[6].rpartition(" ")[2],
    ]


@on_loops
async def test_client_that_left_is_logged_without_status(
    caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.protocol.HALF_OPEN", 0.05)
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: app.running, "the request")
        client.writer.transport.abort()
        await eventually(lambda: not served.listener.connections, "the end")
        app.go.set()
        await eventually(lambda: not app.running, "the end of the request")
    assert [line.rpartition('" ')[2] for line in lines(caplog)][-1] == "- 0"


@on_loops
async def test_access_log_off_still_logs_refusals_and_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_app(App(), options={"access_log": False}) as served:
        for request in (BYE, b"nonsense\r\n\r\n", GET.replace(b"who", b"fail")):
            async with client_of(served) as client:
                client.send(request)
                await client.read()
    # Failures are no part of it, nor is what the server itself has refused.
    refusal, failure = caplog.records
    assert (refusal.levelname, failure.levelname) == ("INFO", "ERROR")
    assert refusal.getMessage().endswith(' "-" 400 0')


@on_loops
async def test_log_lines_about_refusals_are_throttled(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App(), options={"access_log": False}) as served:
        for _ in range(MAX_RECORDS + 5):
            async with client_of(served) as client:
                client.send(b"nonsense\r\n\r\n")
                await client.read()
    *shown, omitted = caplog.records
    assert len(shown) == MAX_RECORDS
    assert omitted.getMessage() == ('listener "web": 5 more refused requests are not shown: 400')


@on_loops
async def test_end_of_a_connection_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten.http")

    def ends() -> list[dict[str, Any]]:
        records = [vars(one) for one in caplog.records]
        return [one["fields"] for one in records if one.get("event") == "session-ended"]

    async with serving_app(App()) as served:
        async with client_of(served) as client:
            port = port_of(client)
            await client.ask(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(ends, "the end")
        async with client_of(served) as client:
            await client.ask(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n")
            client.writer.transport.abort()
            await eventually(lambda: len(ends()) == 2, "the other end")
    first, second = ends()
    assert (first["port"], first["reason"], second["reason"]) == (port, "closed", "closed")
    assert first["duration"] >= 0
