"""Server.control without HTTP: operations, repeated ones, and impossible ones."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from support.loops import on_loops
from support.management import listener
from support.server import connect, read_some, served
from support.waiting import eventually

from fastlisten.runtime.control import MAX_LIMIT, ImpossibleError, UnknownListenerError
from fastlisten.runtime.drain import STOPPED_FOR
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Readiness

pytestmark = pytest.mark.usefixtures("descriptors_back")


def text(directory: Path, *listeners: str) -> str:
    head = f'[server]\ndata-directory = "{directory}"\ntls.enable = false\n'
    return head + "".join(listeners)


@on_loops
async def test_report_of_many_listeners(tmp_path: Path) -> None:
    ids = [f"l{number:03}" for number in range(230)]
    async with served(text(tmp_path, *(listener(id) for id in ids))) as server:
        reports = await server.control.reports()
        assert [report.id for report in reports] == ids
        assert len({report.addresses for report in reports}) == 230


@on_loops
async def test_change_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(text(tmp_path, listener("it"))) as server:
        control = server.control
        for limit in (0, -1, MAX_LIMIT + 1):
            with pytest.raises(ValueError, match="must be from 1 to 2147483647"):
                await control.set_limit("it", limit, "a test")
        with caplog.at_level(logging.INFO, "fastlisten"):
            for limit in (MAX_LIMIT, MAX_LIMIT, 1):
                await control.set_limit("it", limit, "a test")
                assert (await control.report("it")).limit == limit
        assert [line for line in caplog.messages if "set to" in line] == [
            'listener "it": max-connections set to 2147483647 by a test, was 8192',
            'listener "it": max-connections set to 1 by a test, was 2147483647',
        ]


@on_loops
async def test_pause_and_resume_a_full_listener(tmp_path: Path) -> None:
    waiting = listener("it", "max-connections = 1", 'limit-action = "wait"')
    async with served(text(tmp_path, waiting)) as server:
        control, (only,) = server.control, server.listeners
        port = only.sockets[0].port
        with await connect("127.0.0.1", port) as one, await connect("127.0.0.1", port) as two:
            one.send(b"x")
            two.send(b"x")
            assert await read_some(one, 1) == b"x"
            await eventually(lambda: only.state is State.FULL, "the limit")
            assert (await control.readiness()).ready
            await control.pause("it", "a test")
            assert await control.readiness() == Readiness(False, (("it", State.PAUSED),))
            # A free place changes nothing now.
            one.close()
            await eventually(lambda: only.connections == 0, "the end of the first")
            assert only.state is State.PAUSED
            await control.resume("it", "a test")
            assert await read_some(two, 1) == b"x"
            assert (await control.readiness()).ready


@on_loops
async def test_refusal_is_logged_with_the_limit_at_that_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(text(tmp_path, listener("it", "max-connections = 1"))) as server:
        control, (only,) = server.control, server.listeners
        port = only.sockets[0].port
        with await connect("127.0.0.1", port), await connect("127.0.0.1", port):
            await eventually(lambda: only.statistics()["refused_limit"] == 1, "the refusal")
            await control.set_limit("it", 2, "a test")
            await eventually(lambda: "refused 1 connection" in caplog.text, "the line")
    assert "max-connections = 1 reached" in caplog.text


@on_loops
async def test_errors_name_the_listener_and_reason(tmp_path: Path) -> None:
    async with served(text(tmp_path, listener("it"))) as server:
        control = server.control
        for ask in (control.pause, control.resume, control.drain):
            with pytest.raises(UnknownListenerError) as unknown:
                await ask("other", "a test")
            assert unknown.value.id == "other"
        await control.drain("it", "a test")
        for ask in (control.pause, control.resume):
            with pytest.raises(ImpossibleError) as impossible:
                await ask("it", "a test")
            assert (impossible.value.id, impossible.value.state) == ("it", State.CLOSED)
        assert not (await control.readiness()).ready


@on_loops
async def test_control_before_start_and_after_end(tmp_path: Path) -> None:
    async with served(text(tmp_path, listener("it"))) as server:
        before = await server.control.readiness()
    after = await server.control.readiness()
    assert (before.ready, after.ready) == (True, False)
    (report,) = await server.control.reports()
    assert report.state is State.CLOSED
    # Nothing is open any more; the counters are still known.
    assert (report.total.connections, report.held, report.total.accepted) == (0, 0, 0)
    assert report.addresses[0].startswith("127.0.0.1:")


@on_loops
async def test_drain_does_not_count_time_while_the_process_is_stopped(
    tmp_path: Path,
) -> None:
    limited = text(tmp_path, 'shutdown-timeout = "1s"\n', listener("it"))
    async with served(limited) as server:
        (only,) = server.listeners
        with await connect("127.0.0.1", only.sockets[0].port) as client:
            client.send(b"begin")
            assert await read_some(client, 5) == b"begin"
            await server.control.drain("it", "a test")
            # The drain has begun to wait, then the process is stopped.
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(STOPPED_FOR + 1.1)
            # The client needs answers of the server, hence some turns of the loop, to reach its
            # end.
            for _ in range(10):
                await asyncio.sleep(0)
            client.send(b"end")
            assert await read_some(client, 3) == b"end"
            assert await read_some(client, 100) == b"farewell: shutdown\n"
        await eventually(lambda: only.state is State.CLOSED, "the end of the drain")
