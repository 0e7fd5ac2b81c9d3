"""Reloads that fail: everything is reported, and nothing has changed.

Rules of this file: each test breaks one thing beside changes that would work, and looks at the
server afterwards: the same listeners with the same handlers on the same sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.serving_handlers import NeverReady
from support.waiting import eventually

from fastlisten.runtime.reload.report import ReloadReport

pytestmark = pytest.mark.usefixtures("descriptors_back")

BEFORE = echo("a", "max-connections = 5", "socket.ttl = 33", "socket.backlog = 50") + echo("b")
#: What would be changed if nothing was wrong.
AFTER = echo("a", "max-connections = 6", "socket.ttl = 34", "socket.backlog = 60") + echo("new")


def state(it: Reloadable) -> list[object]:
    """Return what must not change."""
    started = list(it.server._worker._started.values())
    found: list[object] = [os.listdir("/proc/self/fd"), it.server.config, started]
    for one in it.server.listeners:
        (bound,) = one.sockets
        handler: Any = one.handler
        assert one.places is not None
        found += [
            one,
            handler,
            handler.events,
            os.fstat(bound.sock.fileno()).st_ino,
            bound.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL),
            bound.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32),
            bound.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
            one.places.limit,
            one.places.row,
        ]
    return found


def succeeded(it: Reloadable) -> bool:
    return it.server.reload_succeeded


def arena_rows(it: Reloadable) -> int:
    arena = it.server._arena
    assert arena is not None
    return arena.rows


async def fails(it: Reloadable, text: str) -> ReloadReport:
    """Reload a text that cannot be used; return the report."""
    # The first reload makes the executor's thread and loads modules.
    assert not (await it.reload("x")).applied
    before = state(it)
    report = await it.reload(text)
    assert (report.applied, report.succeeded) == (False, False)
    assert (report.added, report.removed, report.changed, report.restart) == ((), (), (), ())
    assert state(it) == before
    assert succeeded(it) is False
    rows = arena_rows(it)
    assert (await it.reload(text)).problems == report.problems
    assert arena_rows(it) == rows
    for id in ("a", "b"):
        assert await it.answer(id) == b"hello"
    assert (await it.reload(AFTER + echo("b"))).succeeded
    assert succeeded(it) is True
    return report


@on_loops
async def test_all_mistakes_of_the_file_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = AFTER.replace("s = 6\n", "s = 0\n").replace("34", '"far"')
    async with reloadable(tmp_path, BEFORE) as it:
        report = await fails(it, text)
    assert len(report.problems) == 2
    assert "max-connections = 0" in report.problems[0]
    assert 'socket.ttl = "far"' in report.problems[1]
    assert (
        report.summary
        == f"reload of {tmp_path}/mail.toml failed with 2 problems; nothing has changed"
    )
    assert all(line in caplog.text for line in (*report.problems, report.summary))


@on_loops
async def test_address_in_use(tmp_path: Path) -> None:
    """Also if another new one can be bound, and an old one would have gone."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        async with reloadable(tmp_path, BEFORE) as it:
            report = await fails(it, AFTER + echo("taken", bind=taken))
    (line,) = report.problems
    assert line.startswith(f'listener "taken" on {taken}: bind: Address already in use')


@on_loops
async def test_address_of_another_socket_that_would_go(tmp_path: Path) -> None:
    """The port gets SO_REUSEPORT for a moment, and loses it again."""
    async with reloadable(tmp_path, BEFORE) as it:
        host, port = it.address("b")
        wider = echo("wide", bind=f"0.0.0.0:{port}") + echo("no", bind="192.0.2.1:99")
        report = await fails(it, AFTER + wider)
        assert host == "127.0.0.1"
    assert report.problems[0].startswith('listener "no" on 192.0.2.1:99: bind: Cannot assign')


@on_loops
async def test_option_that_the_kernel_refuses(tmp_path: Path) -> None:
    text = AFTER.replace("socket.ttl = 34", 'socket.ttl = 34\nsocket.congestion = "nosuch"')
    async with reloadable(tmp_path, BEFORE) as it:
        report = await fails(it, text + echo("b"))
    (line,) = report.problems
    assert "socket.congestion (TCP_CONGESTION) = nosuch: No such file or directory" in line


@on_loops
@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("NotReady", "the handler cannot start: the store is not there"),
        ("Picky", "Picky rejects its settings: ValueError: no such store"),
        ("Missing", "has no attribute 'Missing'"),
        ("WrongWords", "the refusal of WrongWords must be bytes, not str"),
    ],
)
async def test_handler_that_cannot_be_used(tmp_path: Path, handler: str, says: str) -> None:
    """Others have been started, and are stopped."""
    broken = echo("z").replace("serving_handlers:Echo", f"serving_handlers:{handler}")
    async with reloadable(tmp_path, BEFORE) as it:
        report = await fails(it, AFTER + broken)
    (line,) = report.problems
    assert says in line
    assert "server.listener.z.handler" in line


@on_loops
async def test_file_that_cannot_be_read_again(tmp_path: Path) -> None:
    async with reloadable(tmp_path, BEFORE) as it:
        before = it.server.listeners
        it.path.unlink()
        report = await it.server.reload()
        assert "mail.toml: cannot be read: No such file or directory" in report.problems[0]
        os.mkfifo(it.path)
        report = await it.server.reload()
        assert "only a file can be read again" in report.problems[0]
        assert it.server.listeners == before


@on_loops
async def test_new_inherited_descriptor(tmp_path: Path) -> None:
    """A number is another descriptor by now: one of the server's own, perhaps."""
    async with reloadable(tmp_path, BEFORE) as it:
        number = it.listener("a").sockets[0].sock.fileno()
        report = await fails(it, AFTER + echo("fd", bind=f"fd:{number}"))
    assert "an inherited descriptor can only be used from the start" in report.problems[0]


@on_loops
async def test_stop_during_a_reload(tmp_path: Path) -> None:
    slow = echo("slow").replace("serving_handlers:Echo", "serving_handlers:NeverReady")
    async with reloadable(tmp_path, BEFORE) as it:
        it.path.write_text(AFTER + slow)
        task = it.server.reload()
        await eventually(lambda: NeverReady.waiting, "the start of the slow handler")
    assert task.done()
    assert not NeverReady.waiting
    with pytest.raises(RuntimeError):
        it.server.reload()


@on_loops
async def test_stop_before_a_reload_has_begun(tmp_path: Path) -> None:
    """It must not open listeners while the others drain."""
    async with reloadable(tmp_path, BEFORE) as it:
        it.path.write_text(AFTER)
        task = it.server.reload()
        await asyncio.sleep(0)
        it.server.stop()
        await it.server.shutdown()
        assert task.cancelled()
        assert [one.name for one in it.server.listeners] == ["a", "b"]


@on_loops
async def test_requests_during_a_reload_are_answered_by_one(tmp_path: Path) -> None:
    async with reloadable(tmp_path, BEFORE) as it:
        running = it.server.reload()
        await asyncio.sleep(0)
        assert it.server.reload() is it.server.reload() is not running
        new = tmp_path / "new.toml"
        new.write_text(AFTER)
        new.replace(it.path)  # it may be read at this moment
        assert (await it.server.reload()).succeeded
        assert (await running).succeeded
        assert it.listener("new")
