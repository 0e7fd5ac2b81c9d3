"""The ASGI application that all HTTP candidates serve: its response is a few octets."""

from __future__ import annotations

from typing import Any

__all__ = ["application"]

_BODY = b"Hello, world!\n"
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_BODY))],
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request; lifespan is not supported."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send(_START)
    await send({"type": "http.response.body", "body": _BODY})
