"""Refused requests: the right status, readable by the client, then the connection closes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from http import HTTPStatus
from typing import Any

import pytest
from support.http import GET, App, client_of, handler_of, serving_app
from support.http_hostile import HOSTILE
from support.loops import on_loops
from support.waiting import eventually

from fastlisten.handlers.base import Reason

POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("after", [b"", GET], ids=["first", "second"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "a large chunk header"])
def test_hostile_requests_are_refused_and_the_connection_ends(name: str, after: bytes) -> None:
    """What follows a refused request, in the same packet, is never executed."""
    data, status = HOSTILE[name]
    # An application that answers before it has read the body may be faster than the refusal.
    data = data.replace(b" /a HTTP/1.", b" /echo HTTP/1.")

    async def test() -> None:
        app = App()
        limits = {"max_header_size": 8192, "max_body_size": 1000}
        async with serving_app(app, options=limits) as served, client_of(served) as client:
            if after:
                assert (await client.ask(after))[0] == 200
            client.send(data + b"\r\n\r\n" + GET)
            answer = await client.read()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\ndate: " in head
        assert b"\r\ncontent-length: %d\r\n" % len(body) in head
        # At most the request before, and the one that was refused in its body.
        assert [scope["path"] for scope in app.seen] in (
            ["/who"] * bool(after),
            ["/who"] * bool(after) + ["/echo"],
        )

    asyncio.run(test())


@on_loops
@pytest.mark.parametrize("tls", [None, "implicit"])
async def test_client_that_goes_on_sending_can_read_413(tls: Any) -> None:
    app = App()
    async with serving_app(app, tls=tls, options={"max_body_size": 1 << 20}) as served:
        for head in (POST + b"Content-Length: 99999999\r\n\r\n", CHUNKED):
            async with client_of(served) as client:
                client.send(head)

                async def pour() -> None:
                    while True:
                        client.send(b"10000\r\n" + bytes(65536) + b"\r\n")
                        await client.writer.drain()

                sending = asyncio.create_task(pour())
                # Python 3.13 has the words of RFC 9110, before it those of RFC 2616.
                phrase = HTTPStatus(413).phrase.encode()
                assert await client.response() == (413, phrase + b"\n")
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending
        assert app.taken <= 1 << 20
        # It was told that the client is gone: nothing that it could say would be heard.
        assert app.told == ["http.disconnect"]
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_body_one_octet_too_large_is_413() -> None:
    app = App()
    async with serving_app(app, options={"max_body_size": 5}) as served:
        async with client_of(served) as client:
            assert await client.ask(CHUNKED + b"5\r\nabcde\r\n0\r\n\r\n") == (200, b"abcde")
            assert (await client.ask(CHUNKED + b"5\r\nabcde\r\n1\r\nf\r\n"))[0] == 413
            assert await client.read() == b""
        async with client_of(served) as client:
            assert await client.ask(POST + b"Content-Length: 5\r\n\r\nabcde") == (200, b"abcde")
            assert (await client.ask(POST + b"Content-Length: 6\r\n\r\n"))[0] == 413
        assert len(app.seen) == 3


@on_loops
async def test_rest_of_a_refused_body_is_read_for_two_seconds() -> None:
    options = {"max_body_size": 100}
    async with serving_app(App(), options=options) as served, client_of(served) as client:
        client.send(CHUNKED.replace(b"/echo", b"/early"))
        assert await client.response() == (401, b"early")
        client.send(b"65\r\n" + bytes(101) + b"\r\n")
        # It has been answered already.
        assert await client.read() == b""


@on_loops
async def test_refused_body_cuts_off_a_response_that_has_begun() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(CHUNKED.replace(b"/echo", b"/pieces") + b"1\r\na\r\n")
        await client.head()
        client.send(b"nonsense\r\n")
        assert await client.read() == b"5\r\nfirst\r\n"
        app.go.set()
        await eventually(lambda: not app.running, "the end of the request")


@on_loops
async def test_unterminated_head_is_408() -> None:
    handler_options = {"header_timeout": 0.1}
    async with serving_app(App(), options=handler_options) as served:
        for start in (b"", GET):
            async with client_of(served) as client:
                if start:
                    await client.ask(start)
                client.send(GET[:-1])
                assert await client.response() == (408, b"Request Timeout\n")
                assert await client.read() == b""
        async with client_of(served) as client:
            assert (await client.ask(GET))[0] == 200
            # Nothing is counted between requests.
            await asyncio.sleep(0.15)
            assert (await client.ask(GET))[0] == 200


@on_loops
async def test_head_in_single_octets() -> None:
    options = {"header_timeout": 20.0}
    async with serving_app(App(), options=options) as served, client_of(served) as client:
        for octet in GET:
            client.send(bytes([octet]))
            await client.writer.drain()
        assert (await client.response())[0] == 200


@on_loops
async def test_client_above_max_connections_gets_503() -> None:
    async with serving_app(App(), max_connections=1) as served, client_of(served) as first:
        assert (await first.ask(GET))[0] == 200
        async with client_of(served) as second:
            head = await second.head()
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")
            assert b"\r\nConnection: close\r\n" in head
            assert await second.read() == b"Service Unavailable\n"
        assert (await first.ask(GET))[0] == 200


@pytest.mark.parametrize("reason", Reason)
def test_canned_refusal_is_a_complete_response(reason: Reason) -> None:
    head, _, body = handler_of(App()).refusal(reason).partition(b"\r\n\r\n")
    status = {Reason.DENIED: b"403", Reason.RATE: b"429", Reason.ADDRESS: b"429"}
    assert head.split()[1] == status.get(reason, b"503")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    # An answer without a request would be taken for that to the next one.
    assert handler_of(App()).farewell(reason) == b""


@on_loops
async def test_silent_client_is_closed_without_a_response() -> None:
    times: dict[str, Any] = {"first_byte_timeout": 0.1, "idle_timeout": 0.1}
    async with (
        serving_app(App(), **times) as served,
        client_of(served) as silent,
        client_of(served) as spoken,
    ):
        assert (await spoken.ask(GET))[0] == 200
        assert await silent.read() == await spoken.read() == b""


class Reset:
    """A transport whose client has reset the connection, which nobody has noticed yet."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


@on_loops
async def test_client_that_resets_before_the_refusal_is_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"header_timeout": 0.05}
    async with serving_app(App(), options=options) as served, client_of(served) as client:
        assert (await client.ask(GET))[0] == 200
        (protocol,) = served.handler.service.connections  # type: ignore[attr-defined]
        protocol.transport = Reset(protocol.transport)
        client.send(GET[:-1])
        await eventually(lambda: not served.listener.connections, "the end of the connection")
    assert not caplog.records


def test_client_that_resets_after_the_refusal_leaves_nothing(descriptors_back: None) -> None:
    async def test() -> None:
        async with serving_app(App()) as served:
            with socket.create_connection((served.host, served.port)) as sock:
                sock.sendall(b"nonsense\r\n\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1] + [0] * 7))
            await eventually(lambda: not served.listener.connections, "the end of the connection")

    asyncio.run(test())
