"""Reloading listeners: they come, go, are renamed and get other addresses; the rest goes on.

Rules of this file: the server runs on the test's loop, and clients are real. What must not change
is looked at from outside: the same connection goes on, the same inode is the listening socket.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.server import read_all, read_some
from support.waiting import eventually

from fastlisten.runtime.listener import State

pytestmark = pytest.mark.usefixtures("descriptors_back")


def inode(it: Reloadable, id: str = "it") -> int:
    """Return what identifies a listener's socket in the kernel."""
    return os.fstat(it.listener(id).sockets[0].sock.fileno()).st_ino


def refuses(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) != 0


@on_loops
async def test_new_listener_accepts_and_others_go_on(tmp_path: Path) -> None:
    async with reloadable(tmp_path, echo("a")) as it:
        before = inode(it, "a")
        with await it.connect("a") as client:
            client.send(b"one")
            assert await read_some(client, 3) == b"one"
            report = await it.reload(echo("a") + echo("b"))
            assert (report.added, report.removed, report.changed) == (("b",), (), ())
            assert await it.answer("b") == b"hello"
            client.send(b"two")
            assert await read_some(client, 3) == b"two"
        assert inode(it, "a") == before
        assert [one.name for one in it.server.listeners] == ["a", "b"]
        places = [one.places for one in it.server.listeners]
        assert all(one is not None and one.limit == 8192 for one in places)


@on_loops
async def test_listener_that_is_gone_drains(tmp_path: Path) -> None:
    """Idle clients get the farewell, a busy one finishes, then its handler is stopped."""
    async with reloadable(tmp_path, echo("a") + echo("b")) as it:
        address, listener = it.address("b"), it.listener("b")
        handler: Any = listener.handler
        with await it.connect("b") as idle, await it.connect("b") as busy:
            busy.send(b"begin")
            assert await read_some(busy, 5) == b"begin"
            report = await it.reload(echo("a"))
            assert report.removed == ("b",)
            assert await read_all(idle) == b"farewell: shutdown\n"
            assert refuses(address)
            assert listener.state is State.DRAINING
            assert handler.events == ["start"]
            busy.send(b"end")
            assert await read_some(busy, 3) == b"end"
            assert await read_all(busy) == b"farewell: shutdown\n"
        await eventually(lambda: handler.events == ["start", "stop"], "the stop")
        await listener.closed()
        assert [one.name for one in it.server.listeners] == ["a"]
        assert await it.answer("a") == b"hello"


@on_loops
async def test_renamed_listener_keeps_its_socket(tmp_path: Path) -> None:
    """A client that waits in the backlog is accepted by the new one."""
    async with reloadable(tmp_path, echo("a")) as it:
        host, port = it.address("a")
        bind = f"{host}:{port}"
        await it.reload(echo("a", bind=bind))
        before = inode(it, "a")
        it.listener("a").pause()
        with await it.connect("a") as waiting:
            waiting.send(b"hello")
            report = await it.reload(echo("b", bind=bind))
            assert (report.added, report.removed) == (("b",), ("a",))
            assert await read_some(waiting, 5) == b"hello"
        assert it.address("b") == (host, port)
        assert inode(it, "b") == before


@on_loops
async def test_other_address(tmp_path: Path) -> None:
    async with reloadable(tmp_path, echo("it")) as it:
        before = it.address()
        with await it.connect() as client:
            client.send(b"one")
            assert await read_some(client, 3) == b"one"
            report = await it.reload(echo("it", bind="127.0.0.2:0"))
            assert report.changed == ('listener "it": bind = "127.0.0.2:0" (was "127.0.0.1:0")',)
            assert it.address()[0] == "127.0.0.2"
            assert await it.answer() == b"hello"
            assert refuses(before)
            client.send(b"two")
            assert await read_some(client, 3) == b"two"


@on_loops
@pytest.mark.parametrize("wider", ["0.0.0.0", "[::]"])
async def test_address_that_covers_the_old_one(tmp_path: Path, wider: str) -> None:
    """Both are bound for a moment; no other program could take the port."""
    async with reloadable(tmp_path, echo("it")) as it:
        host, port = it.address()
        await it.reload(echo("it", bind=f"{host}:{port}"))
        report = await it.reload(echo("it", bind=f"{wider}:{port}"))
        assert report.succeeded
        with socket.create_connection((host, port), 10) as client:
            client.send(b"hello")
            client.setblocking(False)
            assert await read_some(client, 5) == b"hello"
        sock = it.listener().sockets[0].sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        report = await it.reload(echo("it", bind=f"{host}:{port}"))
        assert report.succeeded
        assert await it.answer() == b"hello"


@on_loops
async def test_paused_listener_stays_paused(tmp_path: Path) -> None:
    async with reloadable(tmp_path, echo("it") + echo("other")) as it:
        it.listener().pause()
        await it.reload(echo("it", 'timeout.idle = "7m"') + echo("other"))
        assert it.listener().state is State.PAUSED
        with await it.connect() as client:
            client.send(b"hello")
            assert await it.answer("other") == b"hello"
            assert it.listener().connections == 0
            it.listener().resume()
            assert await read_some(client, 5) == b"hello"


@on_loops
async def test_drained_listener_stays_closed(tmp_path: Path) -> None:
    """A reload for a renewed certificate must not open what an administrator has closed."""
    async with reloadable(tmp_path, echo("it") + echo("other")) as it:
        handler: Any = it.listener().handler
        address = it.address()
        await it.server.control.drain("it", "a test")
        await eventually(lambda: it.listener().state is State.CLOSED, "the drain")
        await it.reload(echo("it", "max-connections = 5") + echo("other"))
        assert it.listener().state is State.CLOSED
        assert refuses(address)
        await it.reload(echo("other"))
        await eventually(lambda: handler.events == ["start", "stop"], "the stop")
        report = await it.reload(echo("it") + echo("other"))
        assert report.added == ("it",)
        assert await it.answer() == b"hello"


@on_loops
async def test_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "it.sock"
    text = echo("it", bind=f"unix:{path}")
    async with reloadable(tmp_path, text) as it:
        before = path.stat().st_ino
        await it.reload(text.replace("listener.it", "listener.renamed"))
        assert path.stat().st_ino == before
        await it.reload(echo("it"))
        await eventually(lambda: not path.exists(), "the end of the file")


@on_loops
async def test_row_of_a_listener_is_used_again(tmp_path: Path) -> None:
    """Else a server could be reloaded only so often; a new listener begins with all its places."""
    async with reloadable(tmp_path, echo("a")) as it:
        rows = set()
        for count in range(5):
            id = f"b{count}"
            await it.reload(echo("a") + echo(id, "max-connections = 1"))
            assert await it.answer(id) == b"hello"
            assert await it.answer(id) == b"hello"
            places = it.listener(id).places
            assert places is not None
            rows.add(places.row)
        assert len(rows) <= 2


@on_loops
async def test_listener_with_port_0_keeps_its_socket(tmp_path: Path) -> None:
    """The file's order does not decide: a new listener that comes first opens its own."""
    async with reloadable(tmp_path, echo("b")) as it:
        port = it.address("b")[1]
        assert (await it.reload(echo("a") + echo("b") + echo("c"))).added == ("a", "c")
        assert it.address("b")[1] == port
        assert len({it.address(id)[1] for id in ("a", "b", "c")}) == 3
        assert (await it.reload(echo("a") + echo("c"))).removed == ("b",)
        assert port not in (it.address("a")[1], it.address("c")[1])
