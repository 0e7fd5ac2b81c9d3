"""HEAD: the head of the answer to GET, and no body whatever serves it (RFC 9110 9.3.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.management import Managed, managed


async def answer(it: Managed, method: str, path: str) -> list[Any]:
    """Return what the application says, as it says it."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 80),
    }
    await it.app(scope, receive, send)
    return said


@pytest.mark.parametrize("path", ["/", "/healthz/live", "/metrics", "/nowhere", "/api/listeners"])
@on_loops
async def test_head(tmp_path: Path, path: str) -> None:
    async with managed(tmp_path) as it:
        got, head = await answer(it, "GET", path), await answer(it, "HEAD", path)
        assert b"".join(one.get("body", b"") for one in got[1:])
        assert b"".join(one.get("body", b"") for one in head[1:]) == b""
        assert head[0]["status"] == got[0]["status"]
        assert {name for name, _ in head[0]["headers"]} == {name for name, _ in got[0]["headers"]}
