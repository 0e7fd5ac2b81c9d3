"""Responses that end a connection while more requests wait: the client can read them whole.

A socket that is closed while input is unread sends a reset, and the client's kernel then discards
what it has not read yet (RFC 9112 9.6). The response is larger than what the kernel buffers, so
the server is still sending it when the client's further requests have long arrived.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.http import client_of, of, serving_app
from support.loops import on_loops

BODY = bytes(8 << 20)

#: More than reading ahead and the kernel's buffers hold.
MORE = of("/next") * 200_000


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a large body, or fail."""
    if scope["path"] == "/fail":
        raise ValueError("the application is broken")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": BODY})


@on_loops
@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (of("/", more="Connection: close\r\n"), len(BODY)),
        (b"GET / HTTP/1.0\r\n\r\n", len(BODY)),
        (of("/fail"), len(b"Internal Server Error\n")),
    ],
)
async def test_last_response_is_read_whole_by_a_client_that_pipelines(
    request_: bytes, size: int
) -> None:
    async with serving_app(answering) as served, client_of(served) as client:
        client.send(request_ + MORE)
        while served.handler.service.tasks or not served.listener.connections:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        head, _, body = (await client.read()).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert len(body) == size
