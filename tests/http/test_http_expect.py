"""Expect: 100-continue (RFC 9110 10.1.1), which a client of HTTP/1.0 does not know."""

from __future__ import annotations

import asyncio

import pytest
from support.http import App, client_of, serving_app
from support.loops import on_loops
from support.waiting import eventually

FIELDS = b"Host: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"


@on_loops
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_who_is_told_to_continue(version: bytes) -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        client.send(b"POST /echo HTTP/" + version + b"\r\n" + FIELDS)
        if version == b"1.1":
            assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        else:
            # The application asks for the body, which the client has not sent yet.
            await eventually(lambda: app.running)
            for _ in range(50):
                await asyncio.sleep(0)
        client.send(b"abc")
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        assert await client.reader.readexactly(3) == b"abc"
