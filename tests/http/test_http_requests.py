"""Ordinary requests: scopes, bodies, pipelining, keep-alive and flow control."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.http import BYE, GET, App, HttpClient, client_of, serving_app
from support.loops import on_loops
from support.marks import needs_ipv6
from support.server import served
from support.waiting import eventually


async def who(client: HttpClient, request: bytes = GET) -> dict[str, Any]:
    status, body = await client.ask(request)
    assert status == 200
    told: dict[str, Any] = json.loads(body)
    return told


@on_loops
async def test_connection_is_kept_alive(descriptors_back: None) -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        clients = [tuple((await who(client))["client"]) for _ in range(5)]
        assert set(clients) == {client.writer.get_extra_info("sockname")}
        client.send(BYE)
        assert (await client.head()).lower().count(b"\r\nconnection: close\r\n") == 1
        assert json.loads(await client.read())["path"] == "/who"


@on_loops
async def test_http_1_0_connection_closes_after_the_response() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        client.send(b"GET /stream?1 HTTP/1.0\r\n\r\n")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"chunked" not in head
        assert await client.read() == bytes(65536)


@on_loops
async def test_scope_of_a_request() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        told = await who(
            client, b"GET /a%20b/%2f?x=%20&y HTTP/1.1\r\nHost: h:1\r\nX-Y:  z \r\n\r\n"
        )
        assert told == {
            "client": list(client.writer.get_extra_info("sockname")),
            "server": [served.host, served.port],
            "scheme": "http",
            "path": "/a b//",
            "method": "GET",
            "http_version": "1.1",
            "state": {"key": "value"},
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "query": "x=%20&y",
            "headers": [["host", "h:1"], ["x-y", "z"]],
        }
        assert app.seen[0]["raw_path"] == b"/a%20b/%2f"
        assert app.seen[0]["root_path"] == ""


@needs_ipv6
@on_loops
async def test_scope_over_ipv6() -> None:
    async with serving_app(App(), host="::1") as served, client_of(served) as client:
        told = await who(client)
        assert told["client"] == ["::1", client.writer.get_extra_info("sockname")[1]]
        assert told["server"] == ["::1", served.port]


@needs_ipv6
@on_loops
async def test_ipv4_client_of_a_dual_stack_socket_has_its_ipv4_address() -> None:
    text = '[server.listener.web]\nprotocol = "http"\nbind = "[::]:0"\napp = "support.http:APP"\n'
    async with served(text) as server:
        port = server.listeners[0].sockets[0].port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        told = await who(HttpClient(reader, writer))
        assert told["client"] == list(writer.get_extra_info("sockname"))
        assert told["server"] == ["127.0.0.1", port]
        writer.close()


@on_loops
async def test_scope_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "web")
        text = '[server.listener.web]\nprotocol = "http"\napp = "support.http:APP"\n'
        async with served(text + f'bind = "unix:{path}"\n'):
            reader, writer = await asyncio.open_unix_connection(path)
            told = await who(HttpClient(reader, writer))
            assert told["client"] is None
            assert told["server"] == [path, None]
            writer.close()


@on_loops
async def test_scope_over_tls() -> None:
    async with serving_app(App(), tls="implicit") as served:
        assert served.client_context is not None
        served.client_context.set_alpn_protocols(["h2", "http/1.1"])
        async with client_of(served) as client:
            ssl = client.writer.get_extra_info("ssl_object")
            assert ssl.selected_alpn_protocol() == "http/1.1"
            told = await who(client)
            assert told["scheme"] == "https"
            assert told["client"] == list(client.writer.get_extra_info("sockname"))
            client.send(BYE)
            assert (await client.read()).startswith(b"HTTP/1.1 200 OK\r\n")


@on_loops
async def test_server_adds_date_and_content_length() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        client.send(GET)
        head = (await client.head()).decode()
        assert re.search(r"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
        assert "server:" not in head.lower()


@on_loops
async def test_date_of_the_application_is_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Date", b"yesterday"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 204, "headers": headers[:1]})
        await send({"type": "http.response.body"})

    async with serving_app(app) as served, client_of(served) as client:
        client.send(BYE)
        assert (await client.read()).lower().count(b"\r\ndate: ") == 1


@on_loops
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        post = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d"
        chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(b"".join(post % number for number in range(300)))
        client.send((chunked + b"2\r\nab\r\n0\r\n\r\n") * 20 + BYE)
        for number in range(300):
            assert await client.response() == (200, b"%04d" % number)
        for _ in range(20):
            assert await client.response() == (200, b"ab")
        assert (await client.response())[0] == 200
        assert await client.read() == b""


@on_loops
async def test_reading_pauses_while_pipelined_requests_wait() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: app.running, "the first request")
        client.send(GET * 200_000)
        (protocol,) = served.handler.service.connections  # type: ignore[attr-defined]
        await eventually(lambda: not protocol.transport.is_reading(), "the end of reading")
        # What the core reads at once, not all that was sent.
        assert len(protocol._reader.buffer) <= 2 * 256 * 1024
        assert app.running == ["/hold"]
        app.go.set()
        assert await client.response() == (200, b"held")
        assert (await client.response())[0] == 200


@on_loops
async def test_bodies_arrive_whole_in_both_framings() -> None:
    body = bytes(range(256)) * 4096
    async with serving_app(App()) as served, client_of(served) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert await client.ask(body) == (200, body)
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        at = 0
        for size in [1, 2, 3, 1000, 65536, 100_000, len(body)]:
            piece = body[at : at + size]
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            at += size
        assert await client.ask(b"0\r\nTrailer: x\r\n\r\n") == (200, body)


@on_loops
@pytest.mark.parametrize("share", [None, 1e-4], ids=["", "in many turns"])
async def test_reading_pauses_while_the_application_does_not_read(
    share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if share is not None:
        monkeypatch.setattr("fastlisten.handlers.http.protocol._SHARE", share)
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        size = 15 << 20
        client.send(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(bytes(size))
        await eventually(lambda: app.running, "the request")
        (protocol,) = served.handler.service.connections  # type: ignore[attr-defined]
        await eventually(lambda: not protocol.transport.is_reading(), "the end of reading")
        assert protocol.exchange.held <= 2 * 256 * 1024
        app.go.set()
        # What the application leaves is thrown away, and the connection goes on.
        assert await client.response() == (200, b"held")
        assert (await client.ask(GET))[0] == 200


@on_loops
async def test_100_continue_is_sent_when_the_application_reads() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        head = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        for _ in range(2):
            client.send(head)
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert await client.ask(b"abc") == (200, b"abc")
        # Nobody can tell whether the body comes after a refusal, so that the connection ends.
        client.send(head.replace(b"/echo", b"/early"))
        assert b"\r\nconnection: close\r\n" in await client.head()
        assert await client.read() == b"early"


@on_loops
async def test_head_response_has_no_body() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        for path in (b"/who", b"/stream?3", b"/early"):
            client.send(b"HEAD %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert (await client.head()).startswith(b"HTTP/1.1 ")
        assert (await client.ask(GET))[0] == 200
        client.send(b"HEAD /fail HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read()).endswith(b"\r\nconnection: close\r\n\r\n")


@on_loops
async def test_unknown_upgrade_is_ignored() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        upgrade = (
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n"
        )
        for _ in range(2):
            assert (await client.ask(GET[:-2] + upgrade))[0] == 200


@on_loops
async def test_absolute_target_is_served() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        told = await who(client, b"GET http://example.org/a?b HTTP/1.1\r\nHost: other\r\n\r\n")
        assert (told["path"], told["query"]) == ("/a", "b")
        assert told["headers"] == [["host", "example.org"]]
        status, _ = await client.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status == 200


@on_loops
async def test_unread_body_is_discarded_before_the_next_request() -> None:
    async with serving_app(App()) as served, client_of(served) as client:
        head = b"POST /early HTTP/1.1\r\nHost: a\r\n"
        for _ in range(3):
            assert await client.ask(head + b"Content-Length: 6\r\n\r\n") == (401, b"early")
            assert (await client.ask(b"GET /x" + GET))[0] == 200
            client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            assert await client.response() == (401, b"early")
            assert (await client.ask(b"6\r\nGET /x\r\n0\r\n\r\n" + GET))[0] == 200


@on_loops
async def test_tiny_chunks_do_not_block_other_clients() -> None:
    """Its input is worked at in turns: others are answered long before it has been read."""
    app = App()
    async with serving_app(app) as served, client_of(served) as slow, client_of(served) as other:
        assert (await other.ask(GET))[0] == 200
        slow.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        slow.send(b"1\r\nx\r\n" * 40_000)
        await eventually(lambda: app.taken, "the first of it")
        assert (await other.ask(GET))[0] == 200
        assert app.taken < 20_000
        slow.send(b"0\r\n\r\n")
        assert await slow.response() == (200, b"x" * 40_000)
