"""The control socket on an event loop: clients that are many, slow, silent or gone.

Rules of this file: clients are real sockets; the server is a configuration served on the running
loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.management import listener
from support.server import connect, read_all
from support.waiting import PATIENCE, eventually

from fastlisten.config import loads
from fastlisten.errors import StartError
from fastlisten.runtime.control_socket import server as server_module
from fastlisten.runtime.control_socket.protocol import MAX_REQUEST
from fastlisten.runtime.listener import State
from fastlisten.runtime.server import Server

pytestmark = pytest.mark.usefixtures("descriptors_back")


def text(directory: Path, *, written: bool = True, count: int = 1, more: str = "") -> str:
    line = f'control-socket = "{directory}/control.sock"\n' if written else ""
    head = f'[server]\ndata-directory = "{directory}"\ntls.enable = false\n{line}'
    return head + "".join(listener(f"l{number}", more) for number in range(count))


async def opened(directory: Path) -> socket.socket:
    """Return a client of the control socket."""
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, str(directory / "control.sock"))
    return client


async def line_of(client: socket.socket) -> dict[str, Any]:
    """Read an answer, octet by octet if need be."""
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\n"):
        more = await asyncio.wait_for(loop.sock_recv(client, 65536), PATIENCE)
        assert more, data
        data += more
    found: dict[str, Any] = json.loads(data)
    return found


async def asked(client: socket.socket, **request: object) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, json.dumps(request).encode() + b"\n")
    return await line_of(client)


@on_loops
async def test_requests_are_answered_and_logged_with_their_sender(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastlisten"):
        async with Server(loads(text(tmp_path))) as server:
            with await opened(tmp_path) as client:
                assert (await asked(client, command="pause", id="l0"))["ok"]
                assert server.listeners[0].state is State.PAUSED
                status = await asked(client, command="status")
                assert status["server"]["pid"] == os.getpid()
                reload = await asked(client, command="reload")
                assert reload["reload"]["succeeded"]
    by = f"uid {os.getuid()} (PID {os.getpid()})"
    assert f'listener "l0": paused by {by}' in caplog.messages
    assert f"reload requested by {by}" in caplog.messages
    assert not (tmp_path / "control.sock").exists()


@on_loops
async def test_pipelined_and_divided_requests(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with Server(loads(text(tmp_path))):
        with await opened(tmp_path) as client:
            await loop.sock_sendall(client, b'{"command": "pause", "id": "l0"}\n{"comm')
            assert (await line_of(client)) == {"ok": True}
            await loop.sock_sendall(client, b'and": "resume", "id": "l0"}\nnonsense\n')
            client.shutdown(socket.SHUT_WR)
            data = await read_all(client)
    assert [json.loads(line)["ok"] for line in data.splitlines()] == [True, False]


@on_loops
async def test_endless_request_ends_the_connection(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with Server(loads(text(tmp_path))):
        with await opened(tmp_path) as client:
            await loop.sock_sendall(client, b"x" * (MAX_REQUEST + 1))
            assert "at most 65536 bytes" in (await line_of(client))["message"]
            assert await read_all(client) == b""


@on_loops
async def test_clients_beyond_the_bound_are_told(tmp_path: Path) -> None:
    async with Server(loads(text(tmp_path))):
        clients = []
        for _ in range(server_module.MAX_CLIENTS):
            clients.append(await opened(tmp_path))
            # It has been accepted.
            assert (await asked(clients[-1], command="pause", id="l0"))["ok"]
        with await opened(tmp_path) as surplus:
            assert (await line_of(surplus))["error"] == "busy"
        clients.pop().close()
        clients.append(await retried(tmp_path))
        for client in clients:
            client.close()


async def retried(directory: Path) -> socket.socket:
    """Connect until the server has noticed that another client has gone."""
    while True:
        client = await opened(directory)
        answer = await asked_or_refused(client)
        if answer["ok"]:
            return client
        client.close()


async def asked_or_refused(client: socket.socket) -> dict[str, Any]:
    try:
        return await asked(client, command="resume", id="l0")
    except (BrokenPipeError, ConnectionResetError):
        return {"ok": False}


@on_loops
async def test_silent_client_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "IDLE_TIMEOUT", 0.01)
    async with Server(loads(text(tmp_path))):
        with await opened(tmp_path) as client:
            assert await read_all(client) == b""


@on_loops
async def test_client_that_does_not_read_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(loads(text(tmp_path, count=300))) as server:
        with await opened(tmp_path) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert (await asked(client, command="pause", id="l0"))["ok"]
            monkeypatch.setattr(server_module, "IDLE_TIMEOUT", 0.05)
            await asyncio.get_running_loop().sock_sendall(client, b'{"command": "status"}\n' * 9)
            control = server._control_server
            assert control is not None
            await eventually(lambda: not control._clients, "the end of the connection")


@on_loops
async def test_gone_client_does_not_disturb_others(tmp_path: Path) -> None:
    async with Server(loads(text(tmp_path, count=300))):
        with await opened(tmp_path) as client:
            await asyncio.get_running_loop().sock_sendall(client, b'{"command": "status"}\n' * 9)
        with await opened(tmp_path) as client:
            assert len((await asked(client, command="status"))["listeners"]) == 300


@on_loops
async def test_answers_while_the_listener_is_full_and_draining(tmp_path: Path) -> None:
    more = "max-connections = 1"
    async with Server(loads(text(tmp_path, more=more))) as server:
        port = server.listeners[0].sockets[0].port
        with await connect("127.0.0.1", port) as one, await opened(tmp_path) as client:
            await asyncio.get_running_loop().sock_sendall(one, b"x")
            await eventually(lambda: server.listeners[0].connections == 1, "the connection")
            (only,) = (await asked(client, command="status"))["listeners"]
            assert (only["connections"], only["limit"]) == (1, 1)
            assert only["workers"][0]["connections"] == 1
            assert (await asked(client, command="drain", id="l0"))["ok"]
            (only,) = (await asked(client, command="status"))["listeners"]
            assert only["state"] in ("draining", "closed")


@on_loops
async def test_internal_error_is_answered_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(loads(text(tmp_path))) as server:
        monkeypatch.setattr(server.control, "reports", _failing)
        with await opened(tmp_path) as client:
            answer = await asked(client, command="status")
            assert (answer["error"], answer["message"]) == ("failed", "failed: no such luck")
        with await opened(tmp_path) as client:
            assert (await asked(client, command="pause", id="l0"))["ok"]
    assert "no such luck" in caplog.text
    caplog.clear()  # the traceback keeps the server alive


async def _failing() -> Any:
    raise ValueError("no such luck")


@on_loops
async def test_configured_socket_in_use_fails_the_start(tmp_path: Path) -> None:
    async with Server(loads(text(tmp_path))):
        second = Server(loads(text(tmp_path)))
        with pytest.raises(StartError) as error:
            await second.startup()
        (failure,) = error.value.failures
        assert (failure.listener, failure.address) == (None, f"{tmp_path}/control.sock")
        said = str(failure)
        assert said.startswith(f"server.control-socket: {tmp_path}/control.sock: Address already")
        assert f"held by PID {os.getpid()}" in said
        with await opened(tmp_path) as client:
            assert (await asked(client, command="status"))["ok"]


@on_loops
async def test_default_socket_in_use_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "control.sock")
    async with Server(loads(text(tmp_path, written=False)), control_socket=path):
        with caplog.at_level(logging.INFO, "fastlisten"):
            second = Server(loads(text(tmp_path, written=False)), control_socket=path)
            async with second:
                assert second.accepting
        (record,) = (one for one in caplog.records if one.levelno == logging.WARNING)
        assert f"no control socket: {path}: Address already in use" in record.getMessage()
        with await opened(tmp_path) as client:  # that of the first is still there
            assert (await asked(client, command="status"))["ok"]


@on_loops
async def test_library_has_no_socket_unless_it_is_configured(tmp_path: Path) -> None:
    async with Server(loads(text(tmp_path, written=False))):
        assert not (tmp_path / "control.sock").exists()
