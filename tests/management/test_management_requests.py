"""Malformed requests: bodies, media types, lengths, paths, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.management import managed

pytestmark = pytest.mark.usefixtures("descriptors_back")

PROBLEM = "application/problem+json"


GOOD = [b'{"limit": 1}', b' {"limit":7.0}\n', b'{"limit": 2147483647}', b'{"limit": 1e3}']

FORM = [
    *(b"{}", b"[]", b"1", b"null", b'"limit"', b'{"limit": "5"}', b'{"limit": true}'),
    *(b'{"limit": 0}', b'{"limit": -1}', b'{"limit": 2147483648}', b'{"limit": 1.5}'),
    *(b'{"limit": null}', b'{"limit": [5]}', b'{"limit": 1e999}', b'{"limit": NaN}'),
    *(b'{"limit": 5, "more": 1}', b'{"Limit": 5}', b'{"limit": ' + b"9" * 4000 + b"}"),
]

NO_JSON = [
    *(b"", b" ", b"limit=5", b"{", b'{"limit": 5', b"{'limit': 5}", b'{"limit": 05}', b"\xff"),
    *(b'{"limit": 5}\x00', b'{"limit": 5} {}', b"[" * 4096, '{"limit": 5}'.encode("utf-16")),
]


@pytest.mark.parametrize(
    ("bodies", "status"), [(GOOD, 200), (FORM, 422), (NO_JSON, 400), ([b" " * 4097], 413)]
)
@on_loops
async def test_request_bodies(tmp_path: Path, bodies: list[bytes], status: int) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        for body in bodies:
            answer = await client.post(
                "/api/listeners/it/limit",
                content=body,
                headers={"content-type": "Application/JSON; charset=UTF-8"},
            )
            assert answer.status_code == status, body
            if status != 200:
                assert answer.headers["content-type"] == PROBLEM
                assert answer.json()["status"] == status
                assert (await client.get("/api/listeners/it")).json()["limit"] == 8192


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonx",
        "text/json",
        "multipart/form-data; boundary=x",
    ],
)
@on_loops
async def test_other_media_types(tmp_path: Path, kind: str) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        answer = await client.post(
            "/api/listeners/it/limit", content=b'{"limit": 5}', headers={"content-type": kind}
        )
        assert answer.status_code == 415


@on_loops
async def test_body_is_read_up_to_the_limit(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:
        read = 0

        async def body() -> Any:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": bytes(1000), "more_body": True}

        for length, most in ((b"1000000", 0), (b"9" * 5000, 0), (b"", 5)):
            read = 0
            sent: list[Any] = []

            async def keep(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            headers = [
                (b"host", b"localhost"),
                (b"authorization", b"Bearer " + it.token.encode()),
                (b"content-type", b"application/json"),
                *([(b"content-length", length)] if length else []),
            ]
            path = "/api/listeners/it/limit"
            scope = {
                "type": "http",
                "method": "POST",
                "path": path,
                "raw_path": path.encode(),
                "headers": headers,
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 80),
            }
            await it.app(scope, body, keep)
            assert sent[0]["status"] == 413
            assert read == most


@on_loops
async def test_disconnected_client_gets_no_response(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:

        async def gone() -> Any:
            return {"type": "http.disconnect"}

        async def keep(message: Any) -> None:
            raise AssertionError("nobody is there")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/listeners/it/drain",
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {it.token}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await it.app(scope, gone, keep)
        # A change whose request was incomplete is not made.
        assert it.server.listeners[0].state.value == "listening"


# --- unknown paths ------------------------------------------------------------------------------


@on_loops
async def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        for path in (
            *("/x", "/api", "/api/listeners/", "/api/listeners/nobody", "/healthz%2Flive"),
            *(
                "/api/listeners/it/",
                "/api/listeners/it/x",
                "/%FF",
                "/api/listeners/%FF",
                "/metrics/",
            ),
        ):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == PROBLEM
            assert answer.json()["title"] == "Not Found"
        for method, path, allowed in [
            ("POST", "/", "GET, HEAD"),
            ("DELETE", "/api/listeners/it", "GET, HEAD"),
            ("OPTIONS", "/metrics", "GET, HEAD"),
            ("GET", "/api/listeners/it/pause", "POST"),
            ("HEAD", "/api/listeners/nobody/limit", "POST"),
        ]:
            answer = await client.request(method, path)
            assert answer.status_code == 405
            assert answer.headers["allow"] == allowed
        for what in ("pause", "resume", "drain"):
            answer = await client.post(f"/api/listeners/nobody/{what}")
            assert answer.status_code == 404
            assert answer.json()["detail"] == 'there is no listener "nobody"'
            answer = await client.post(f"/api/listeners/it/{what}", content=b"{}")
            assert answer.status_code == 400
        answer = await client.post("/api/listeners/nobody/limit", json={"limit": 1})
        assert answer.status_code == 404
        assert (await client.get("/api/listeners/it")).json()["state"] == "listening"
