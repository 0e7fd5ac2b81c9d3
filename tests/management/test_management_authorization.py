"""Access in the whole application: the token from startup on, and who gets which answer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.loops import on_loops
from support.management import lifespan, listener, managed, settings
from support.server import served

from fastlisten.handlers.base import HandlerSettings
from fastlisten.management.app import application

UNMANAGED = listener("it", "tls.enable = false")

WAYS = [("GET", "/api/listeners"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/healthz/live")]

CHANGES = ["pause", "resume"]


@on_loops
async def test_reading_and_changing(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:
        everyone: list[tuple[Callable[[], httpx.AsyncClient], bool, bool]] = [
            (lambda: it.client(), True, False),
            (lambda: it.client(peer=("192.0.2.7", 1)), False, False),
            (lambda: it.client("wrong"), False, False),
            (lambda: it.client(it.token), True, True),
            (lambda: it.client(it.token, peer=("192.0.2.7", 1)), True, True),
            (lambda: it.client(it.token, base="http://evil.example"), False, False),
            (lambda: it.client(it.token, origin="http://evil.example"), False, False),
        ]
        for make, reads, changes in everyone:
            async with make() as client:
                for method, path in WAYS:
                    status = (await client.request(method, path)).status_code
                    assert status == 200 if reads else status in (401, 403)
                for change in CHANGES:
                    status = (await client.post(f"/api/listeners/it/{change}")).status_code
                    assert status == 200 if changes else status in (401, 403)


@on_loops
async def test_unauthorized_requests_reveal_nothing(tmp_path: Path) -> None:
    """Neither what exists, nor which methods, nor whether a body would be valid."""
    async with managed(tmp_path) as it, it.client(peer=("192.0.2.7", 1)) as client:
        answers = [
            await client.request(method, path, content=body)
            for method, path, body in [
                ("GET", "/api/listeners/it", b""),
                ("GET", "/api/listeners/nobody", b""),
                ("GET", "/nowhere", b""),
                ("DELETE", "/", b""),
                ("POST", "/api/listeners/it/limit", b"x" * 10_000),
            ]
        ]
        assert {one.status_code for one in answers} == {401}
        assert len({one.content for one in answers}) == 1
        assert answers[0].headers["www-authenticate"] == 'Bearer realm="fastlisten"'


@on_loops
async def test_token_is_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with managed(tmp_path) as it, it.manager() as client:
            await client.post("/api/listeners/it/limit", json={"limit": 3})
            await client.post("/api/listeners/it/pause")
            async with it.client(it.token[:-1] + "!") as other:
                await other.post("/api/listeners/it/pause")
        assert 'listener "it": max-connections set to 3 by 127.0.0.1, was 8192' in caplog.messages
        assert 'listener "it": paused by 127.0.0.1' in caplog.messages
        assert f"created the management token: {tmp_path}/management.token" in caplog.messages
        assert it.token not in caplog.text
        assert it.token[:-1] not in caplog.text


@on_loops
async def test_changes_are_refused_without_lifespan(tmp_path: Path) -> None:
    async with served(UNMANAGED) as server:
        app = application(settings(server, tmp_path))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/healthz/live")).status_code == 200
            answer = await client.post("/api/listeners/it/pause")
            assert answer.status_code == 401


@on_loops
async def test_changes_are_refused_after_the_lifespan(tmp_path: Path) -> None:
    async with served(UNMANAGED) as server:
        app = application(settings(server, tmp_path))
        async with lifespan(app):
            token = (tmp_path / "management.token").read_text().strip()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {"authorization": f"Bearer {token}"}
            assert (await client.get("/healthz/live")).status_code == 200
            answer = await client.post("/api/listeners/it/pause", headers=headers)
            assert answer.status_code == 401


@on_loops
async def test_failed_startup_says_why(tmp_path: Path) -> None:
    (tmp_path / "management.token").write_text("x" * 43)
    (tmp_path / "management.token").chmod(0o644)
    async with served(UNMANAGED) as server:
        async with lifespan(application(settings(server, tmp_path))) as said:
            (failed,) = said
            assert failed["type"] == "lifespan.startup.failed"
            assert f"{tmp_path}/management.token: has mode 0644" in failed["message"]
        nowhere = dataclasses.replace(settings(server, tmp_path), data_directory="")
        async with lifespan(application(nowhere)) as said:
            (failed,) = said
            assert "needs a data directory" in failed["message"]


@on_loops
async def test_websocket_is_not_accepted(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:
        said: asyncio.Queue[Any] = asyncio.Queue()
        await it.app({"type": "websocket"}, asyncio.Queue().get, said.put)
        assert said.get_nowait()["type"] == "websocket.close"
        assert said.empty()


def test_application_requires_a_server(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no server to manage"):
        application(HandlerSettings("it", "http", "mx.example.org", data_directory=str(tmp_path)))
