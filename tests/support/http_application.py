"""The ASGI application served in tests of HTTP clients: it describes the requests it gets.

Rules of this file: no test in it; the server's process imports it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Respond with a description of the request; to ``/stream`` and ``/endless`` with pieces."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})
        return
    assert scope["type"] == "http"
    digest, size, pieces = hashlib.sha256(), 0, 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        pieces += 1
        if not message.get("more_body", False):
            break
    if scope["path"] == "/stream":
        await _stream(send, range(64))
        return
    if scope["path"] == "/endless":
        # `send` raises when the client has disconnected, which ends this.
        await _stream(send, itertools.count())
        return
    headers = dict(scope["headers"])
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "scheme": scope["scheme"],
        "version": scope["http_version"],
        "client": list(scope["client"]),
        "chunked": headers.get(b"transfer-encoding", b"").decode(),
        "size": size,
        "pieces": pieces,
        "sha256": digest.hexdigest(),
    }
    body = json.dumps(told).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


#: One piece of the stream.
PIECE = bytes(range(256)) * 64


async def _stream(send: Callable[[Message], Awaitable[None]], pieces: Iterable[int]) -> None:
    """Send pieces without announcing their length, so that the response is chunked."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in pieces:
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
