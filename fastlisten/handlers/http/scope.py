"""The ASGI scope of a request or a websocket.

Rules of this file: no I/O. A scope is made from the head of the request and from what is known
about the connection.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.http.head import Request

__all__ = ["make_scope"]

#: Schemes without and with TLS.
_SCHEMES = {"http": ("http", "https"), "websocket": ("ws", "wss")}


def make_scope(
    kind: str,
    request: Request,
    info: ConnectionInfo,
    server: tuple[str, int | None] | None,
    state: dict[str, Any],
) -> dict[str, Any]:
    """Return a scope.

    Args:
        kind: ``http`` or ``websocket``.
        request: its head.
        info: where the request comes from.
        server: the address that the client is connected to.
        state: what the application's lifespan has stored; copied.
    """
    raw_path, _, query = request.target.partition(b"?")
    path = raw_path.decode()
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.version,
        "server": server,
        "client": (info.peer, info.port) if info.peer else None,
        "scheme": _SCHEMES[kind][info.tls],
        "method": request.method.decode(),
        "root_path": "",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": request.headers,
        "state": state.copy(),
    }
