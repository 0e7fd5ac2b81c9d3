"""Reading and changing listeners: live state, every transition between states, bad requests."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from support.loops import on_loops
from support.management import IDS, Managed, listener, managed
from support.server import connect, read_all, read_some
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")


def port(managed: Managed, id: str = "it") -> int:
    return next(one.sockets[0].port for one in managed.server.listeners if one.name == id)


async def get_listener(client: httpx.AsyncClient, id: str = "it") -> Any:
    answer = await client.get(f"/api/listeners/{quote(id, safe='')}")
    assert answer.status_code == 200
    return answer.json()


async def request_change(client: httpx.AsyncClient, what: str, id: str = "it") -> tuple[int, str]:
    """Ask for a change; return the status and the listener's state, or why not."""
    answer = await client.post(f"/api/listeners/{quote(id, safe='')}/{what}")
    return answer.status_code, answer.json().get("state") or answer.json()["detail"]


async def limit(client: httpx.AsyncClient, value: int) -> None:
    answer = await client.post("/api/listeners/it/limit", json={"limit": value})
    assert answer.status_code == 200
    assert answer.json()["limit"] == value


async def is_served(client: socket.socket) -> bool:
    """Return whether a client of the listener is served."""
    client.send(b"x")
    return await read_some(client, 1) == b"x"


# --- reading ------------------------------------------------------------------------------------


@on_loops
async def test_report_of_a_listener(tmp_path: Path) -> None:
    async with (
        managed(tmp_path, listener("it", "max-connections = 2")) as it,
        it.client() as client,
    ):
        address = f"127.0.0.1:{port(it)}"
        assert await get_listener(client) == {
            "id": "it",
            "protocol": "smtp",
            "state": "listening",
            "accepting": True,
            "addresses": [address],
            "connections": 0,
            "limit": 2,
            "limit-action": "refuse",
            "accepted": 0,
            "refused": {"limit": 0, "total": 0, "overload": 0},
            "accept-errors": {},
            "tls-handshake-failures": 0,
            "timed-out": 0,
            "stale-workers": [],
            "mail": {
                "messages": {},
                "bytes": 0,
                "rejections": {},
                "deferrals": {},
                "logins": {},
                "sessions-ended": {},
            },
        }
        with (
            await connect("127.0.0.1", port(it)) as one,
            await connect("127.0.0.1", port(it)) as two,
        ):
            assert await is_served(one)
            assert await is_served(two)
            with await connect("127.0.0.1", port(it)) as three:
                assert await read_all(three) == b"refused: limit\n"
            found = await get_listener(client)
            assert found["connections"] == 2
            assert found["accepted"] == 2
            assert found["refused"] == {"limit": 1, "total": 0, "overload": 0}
        await eventually(lambda: it.server.listeners[0].connections == 0, "the end of both")
        found = await get_listener(client)
        assert (found["connections"], found["accepted"]) == (0, 2)
        everything = (await client.get("/api/listeners")).json()
        assert everything == {"listeners": [found]}


@on_loops
async def test_id_may_have_any_character(tmp_path: Path) -> None:
    async with managed(tmp_path, *(listener(id) for id in IDS)) as it, it.manager() as client:
        everything = (await client.get("/api/listeners")).json()["listeners"]
        assert sorted(one["id"] for one in everything) == sorted(IDS)
        for id in IDS:
            # A dot is a path segment that clients resolve before they send it.
            if id == ".":
                continue
            assert (await get_listener(client, id))["id"] == id
            assert await request_change(client, "pause", id) == (200, "paused")
        states = [one.state.value for one in it.server.listeners if one.name != "."]
        assert states == ["paused"] * (len(IDS) - 1)


@on_loops
async def test_id_of_two_dots_in_the_raw_path(tmp_path: Path) -> None:
    async with managed(tmp_path, listener(".."), listener("it")) as it:
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/api/listeners/%2E.",
            "path": "/api/listeners/..",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        for _ in range(2):
            sent: list[Any] = []

            async def keep(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await it.app(scope, None, keep)  # type: ignore[arg-type]
            assert sent[0]["status"] == 200
            assert json.loads(sent[1]["body"])["id"] == ".."
            # A server that does not pass on the raw path.
            del scope["raw_path"]
            scope["raw_path"] = b""


@on_loops
async def test_head_has_no_body(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.client() as client:
        for path in ("/", "/healthz/live", "/healthz/ready", "/openapi.json", "/api/listeners/it"):
            whole, head = await client.get(path), await client.head(path)
            assert whole.headers == head.headers
            assert (head.status_code, head.content) == (200, b"")
        assert (await client.head("/nowhere")).status_code == 404


@on_loops
async def test_every_response_has_security_headers(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.client() as client:
        for method, path in [("GET", "/"), ("GET", "/metrics"), ("GET", "/x"), ("POST", "/")]:
            headers = (await client.request(method, path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert not [name for name in headers if name.startswith("access-control")]
            assert "set-cookie" not in headers


# --- ready --------------------------------------------------------------------------------------


@on_loops
async def test_ready_while_all_listeners_accept(tmp_path: Path) -> None:
    waiting = listener("b", "max-connections = 1", 'limit-action = "wait"')
    async with managed(tmp_path, listener("a"), waiting) as it, it.manager() as client:

        async def ready() -> tuple[int, Any]:
            answer = await client.get("/healthz/ready")
            return answer.status_code, answer.json()

        good = (200, {"status": "ready", "not-accepting": []})
        assert await ready() == good
        with await connect("127.0.0.1", port(it, "b")) as one:
            assert await is_served(one)
            # A full listener accepts as soon as a place is free.
            await eventually(lambda: it.server.listeners[1].state.value == "full", "the limit")
            assert await ready() == good
        await request_change(client, "pause", "a")
        bad = {"status": "unready", "not-accepting": [{"id": "a", "state": "paused"}]}
        assert await ready() == (503, bad)
        assert (await client.get("/healthz/live")).json() == {"status": "alive"}
        await request_change(client, "resume", "a")
        assert await ready() == good
        await request_change(client, "drain", "b")
        assert (await ready())[0] == 503


@on_loops
async def test_socket_that_stopped_listening_is_noticed(tmp_path: Path) -> None:
    """Another process that has it can shut it down, without a pause by anyone."""
    async with managed(tmp_path) as it, it.client() as client:
        it.server.listeners[0].sockets[0].sock.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: not it.server.listeners[0].accepting, "the end of listening")
        found = await get_listener(client)
        assert (found["state"], found["accepting"]) == ("listening", False)
        assert found["accept-errors"] == {"EINVAL": 1}
        answer = await client.get("/healthz/ready")
        assert answer.status_code == 503
        assert answer.json()["not-accepting"] == [{"id": "it", "state": "listening"}]


# --- pause, resume, drain -----------------------------------------------------------------------


@on_loops
async def test_pause_and_resume(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        with await connect("127.0.0.1", port(it)) as before:
            assert await is_served(before)
            for _ in range(2):
                assert await request_change(client, "pause") == (200, "paused")
            # The kernel completes the connection; nobody accepts it.
            with await connect("127.0.0.1", port(it)) as waiting:
                waiting.send(b"x")
                assert await is_served(before)
                assert (await get_listener(client))["connections"] == 1
                for _ in range(2):
                    assert await request_change(client, "resume") == (200, "listening")
                assert await read_some(waiting, 1) == b"x"


@on_loops
async def test_drained_listener_stays_closed(tmp_path: Path) -> None:
    async with managed(tmp_path, listener("it"), listener("other")) as it, it.manager() as client:
        where = port(it)
        addresses = (await get_listener(client))["addresses"]
        busy, idle = await connect("127.0.0.1", where), await connect("127.0.0.1", where)
        with busy, idle:
            busy.send(b"begin")
            assert await read_some(busy, 5) == b"begin"
            assert await is_served(idle)
            assert await request_change(client, "drain") == (200, "draining")
            assert await read_all(idle) == b"farewell: shutdown\n"
            with socket.socket() as late:
                assert late.connect_ex(("127.0.0.1", where)) == errno.ECONNREFUSED
            assert await request_change(client, "drain") == (200, "draining")
            for what in ("pause", "resume"):
                status, why = await request_change(client, what)
                assert status == 409
                assert 'listener "it" is draining and cannot be' in why
            answer = await client.post("/api/listeners/it/limit", json={"limit": 1})
            assert answer.status_code == 409
            # What is busy finishes.
            busy.send(b"end")
            assert await read_all(busy) == b"endfarewell: shutdown\n"
        await eventually(lambda: it.server.listeners[0].state.value == "closed", "the end")
        assert await request_change(client, "drain") == (200, "closed")
        assert (await request_change(client, "resume"))[0] == 409
        found = await get_listener(client)
        # Its state and its counters are still known.
        assert found["addresses"] == addresses
        assert (found["accepted"], found["connections"]) == (2, 0)
        assert await request_change(client, "pause", "other") == (200, "paused")


@on_loops
async def test_drain_of_a_paused_listener(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        await request_change(client, "pause")
        assert await request_change(client, "drain") == (200, "closed")


@on_loops
async def test_drain_closes_connections_at_the_timeout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(tmp_path, text='shutdown-timeout = "80ms"\n') as it, it.manager() as client:
        with await connect("127.0.0.1", port(it)) as busy:
            busy.send(b"begin")
            assert await read_some(busy, 5) == b"begin"
            assert await request_change(client, "drain") == (200, "draining")
            with contextlib.suppress(ConnectionResetError):
                assert await read_all(busy) == b"farewell: shutdown\n"
        await eventually(lambda: it.server.listeners[0].state.value == "closed", "the end")
        assert 'listener "it": closed 1 connection that had not finished in 0.08 s' in caplog.text


@on_loops
async def test_server_ends_while_a_listener_drains(tmp_path: Path) -> None:
    text = 'shutdown-timeout = "1h"\n'
    async with managed(tmp_path, text=text) as it, it.manager() as client:
        busy = await connect("127.0.0.1", port(it))
        with busy:
            busy.send(b"begin")
            assert await read_some(busy, 5) == b"begin"
            assert await request_change(client, "drain") == (200, "draining")
            busy.send(b"end")
            it.server.stop(at_once=True)
            await it.server.shutdown()
            assert it.server.listeners[0].state.value == "closed"


# --- limit --------------------------------------------------------------------------------------


@on_loops
async def test_lower_limit(tmp_path: Path) -> None:
    async with (
        managed(tmp_path, listener("it", "max-connections = 2")) as it,
        it.manager() as client,
    ):
        with (
            await connect("127.0.0.1", port(it)) as one,
            await connect("127.0.0.1", port(it)) as two,
        ):
            assert await is_served(one)
            assert await is_served(two)
            await limit(client, 1)
            # Existing connections stay.
            assert await is_served(one)
            assert await is_served(two)
            with await connect("127.0.0.1", port(it)) as three:
                assert await read_all(three) == b"refused: limit\n"
            await limit(client, 3)
            with await connect("127.0.0.1", port(it)) as three:
                assert await is_served(three)


@on_loops
async def test_higher_limit_admits_waiting_clients(tmp_path: Path) -> None:
    text = listener("it", "max-connections = 1", 'limit-action = "wait"')
    async with managed(tmp_path, text) as it, it.manager() as client:
        with (
            await connect("127.0.0.1", port(it)) as one,
            await connect("127.0.0.1", port(it)) as two,
        ):
            assert await is_served(one)
            two.send(b"x")
            await eventually(lambda: it.server.listeners[0].state.value == "full", "the limit")
            assert (await get_listener(client))["state"] == "full"
            await limit(client, 2)
            assert await read_some(two, 1) == b"x"
