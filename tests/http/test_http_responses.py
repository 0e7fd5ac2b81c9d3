"""Everything that an application may send, status by header by body, read by a strict client.

Rules of this file: h11 is the client. Whatever an application sends, the client gets one response
that RFC 9110 and 9112 allow: the application's, or 500 where that must not be sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from support.http import App, HttpClient, client_of, serving_app
from support.loops import on_loops
from support.waiting import PATIENCE

STATUSES = (200, 201, 204, 205, 304, 404, 599)

#: Header fields, and whether they may be sent.
HEADERS: list[tuple[list[tuple[Any, ...]], bool]] = [
    ([], True),
    ([(b"X-Empty", b""), (b"x-latin", b"\xe9"), (b"x-tab", b"a\tb")], True),
    ([(b"set-cookie", b"a"), (b"set-cookie", b"b")], True),
    ([(b"transfer-encoding", b"chunked")], True),
    ([(b"Transfer-Encoding", b"gzip, chunked"), (b"connection", b"keep-alive")], True),
    ([(b"connection", b"close")], True),
    ([(b"Connection", b"Keep-Alive, X-A"), (b"x-a", b"1")], True),
    ([(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")], True),
    ([(bytearray(b"x-a"), memoryview(b" b "))], True),
    ([(b"x a", b"b")], False),
    ([(b"", b"b")], False),
    ([(b"x-a:", b"b")], False),
    ([(b"x\xe9", b"b")], False),
    ([(b"x-a", b"a\r\nx-b: c")], False),
    ([(b"x-a", b"a\nb")], False),
    ([(b"x-a", b"a\rb")], False),
    ([(b"x-a", b"a\0b")], False),
    ([(b"x-a", b"a\x7fb")], False),
    ([("x-a", b"b")], False),
    ([(b"x-a", "b")], False),
    ([(b"x-a", 3)], False),
    ([(b"x-a",)], False),
]

#: Content-Length, and the size for which it may be sent; -1 where it never may.
LENGTHS: list[tuple[list[tuple[bytes, bytes]], int]] = [
    ([(b"content-length", b"5")], 5),
    ([(b"Content-Length", b"0")], 0),
    ([(b"content-length", b"005")], 5),
    ([(b"content-length", b"5"), (b"content-length", b"5")], -1),
    ([(b"content-length", b"5, 5")], -1),
    ([(b"content-length", b"+5")], -1),
    ([(b"content-length", b"-1")], -1),
    ([(b"content-length", b"5x")], -1),
    ([(b"content-length", b"")], -1),
]

BODIES: list[list[bytes]] = [[b""], [b"12345"], [b"123", b"45"], [b"", b"", b"12345", b""]]


class Sends(App):
    """Sends what it is told to."""

    status: Any = 200
    headers: Any = ()
    body: Any = (b"",)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        for number, piece in enumerate(self.body, 1):
            more = number < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def answer(
    client: HttpClient, method: str = "GET", version: str = "1.1"
) -> tuple[h11.Response, bytes | None, bool]:
    """Return response, body (None if it was cut off), and whether the connection goes on."""
    strict = h11.Connection(h11.CLIENT)
    asked = strict.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    assert asked is not None
    strict.send(h11.EndOfMessage())
    client.send(asked.replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
    response: h11.Response | None = None
    body = b""
    while True:
        try:
            event = strict.next_event()
        except h11.RemoteProtocolError:
            # Nothing was sent that is wrong, but too little.
            assert client.reader.at_eof()
            assert response is not None
            return response, None, False
        if event is h11.NEED_DATA:
            data = await asyncio.wait_for(client.reader.read(65536), PATIENCE)
            strict.receive_data(data)
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage), event
            break
    assert response is not None
    if strict.their_state is not h11.DONE or version == "1.0":
        assert await client.read() == b""
        return response, body, False
    assert strict.trailing_data == (b"", False)
    return response, body, True


def check_head(response: h11.Response, method: str, version: str) -> None:
    """Check what holds for every response (RFC 9110 8.6, 15.3.6; RFC 9112 6.1)."""
    fields = dict(response.headers)
    names = [name for name, _ in response.headers]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert names.count(b"date") == 1
    assert b"server" not in fields
    if response.status_code == 204:
        assert b"content-length" not in fields
    if response.status_code == 205:
        assert fields[b"content-length"] == b"0"
    if response.status_code in (204, 205, 304) or version == "1.0" or method == "HEAD":
        assert b"transfer-encoding" not in fields


def cases(content: bool, method: str) -> Iterator[tuple[list[Any], list[bytes], str]]:
    """Return fields, body and what becomes of the response: sent, refused, or cut off later."""
    for fields, good in HEADERS:
        for body in BODIES:
            if not good or (not content and body[0]):
                yield fields, body, "refused"
            else:
                yield fields, body, "sent" if content or not any(body) else "cut"
    for fields, size in LENGTHS:
        for body in BODIES:
            whole, first = len(b"".join(body)), len(body[0])
            limit = size if content else 0
            if size < 0 or ((method == "GET" or not content) and first > limit):
                yield fields, body, "refused"
            elif whole == limit or (content and method == "HEAD"):
                yield fields, body, "sent"
            else:
                yield fields, body, "cut" if len(body) > 1 else "refused"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", STATUSES)
def test_every_response_is_one_that_the_rfcs_allow(status: int, method: str, version: str) -> None:
    asyncio.run(try_every_response(status, method, version))


async def try_every_response(status: int, method: str, version: str) -> None:
    app = Sends()
    app.status = status
    content = status not in (204, 205, 304)
    async with serving_app(app) as served:
        for fields, pieces, fate in cases(content, method):
            app.headers, app.body = fields, pieces
            async with client_of(served) as client:
                response, body, again = await answer(client, method, version)
                check_head(response, method, version)
                if fate == "sent":
                    whole = b"".join(pieces) if content and method == "GET" else b""
                    assert (response.status_code, body) == (status, whole), (fields, pieces)
                    closes = version == "1.0" or (b"connection", b"close") in fields
                    assert again is not closes, (fields, pieces)
                else:
                    expected = 500 if fate == "refused" else status
                    assert response.status_code == expected, (fields, pieces)
                    assert await client.read() == b""
                if again and fate == "sent":
                    assert (await answer(client, method, version))[0].status_code == status


@on_loops
@pytest.mark.parametrize("status", [None, "200", 200.0, 0, 99, 100, 101, 103, 199, 600, 2**40])
async def test_other_statuses_are_answered_by_500(status: Any) -> None:
    app = Sends()
    app.status = status
    async with serving_app(app) as served, client_of(served) as client:
        assert (await answer(client))[0].status_code == 500


@on_loops
@pytest.mark.parametrize("body", [None, "text", 3, [b"a"], object()])
async def test_body_that_is_no_bytes_is_answered_by_500(body: Any) -> None:
    app = Sends()
    app.body = [body]
    async with serving_app(app) as served, client_of(served) as client:
        response, content, _ = await answer(client)
        assert (response.status_code, content) == (500, b"Internal Server Error\n")


@on_loops
@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc")])
async def test_body_of_other_bytes_is_sent(body: Any) -> None:
    app = Sends()
    app.body = [body]
    async with serving_app(app) as served, client_of(served) as client:
        response, content, _ = await answer(client)
        assert (response.status_code, content) == (200, b"abc")
        assert (b"content-length", b"3") in response.headers
