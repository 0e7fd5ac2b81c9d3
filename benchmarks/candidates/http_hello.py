"""The ASGI applications that the HTTP candidates serve: responses and messages of a few octets."""

from __future__ import annotations

from typing import Any

__all__ = ["application", "application_with_bodies"]

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


async def application_with_bodies(scope: Any, receive: Any, send: Any) -> None:
    """Read a request's body and answer it; send the messages of a websocket back."""
    if scope["type"] == "http":
        while (await receive())["more_body"]:
            pass
        await application(scope, receive, send)
        return
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
