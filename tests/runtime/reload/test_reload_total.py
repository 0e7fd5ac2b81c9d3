"""Reloads of a server with a total: the reserves of listeners that come and go.

Rules of this file: the total is exact, so a reserve is nobody else's while connections hold it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.server import read_all, read_some
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

TOTAL = "[server]\ntotal-connections = 10\n"


def shared(it: Reloadable) -> int:
    """Return how many connections the listeners share."""
    arena, row = it.server._arena, it.server._worker.plan.shared
    assert arena is not None
    assert row is not None
    return arena.places(row, 0).limit


@on_loops
async def test_reserve_is_given_back_when_the_last_connection_has_ended(tmp_path: Path) -> None:
    both = TOTAL + echo("a") + echo("b", "reserve = 3")
    async with reloadable(tmp_path, both) as it:
        assert shared(it) == 7
        with await it.connect("b") as client:
            client.send(b"begin")
            assert await read_some(client, 5) == b"begin"
            await it.reload(TOTAL + echo("a"))
            assert shared(it) == 7
            client.send(b"end")
        await eventually(lambda: shared(it) == 10, "the reserve")
        await it.reload(TOTAL + echo("a") + echo("c", "reserve = 4"))
        assert shared(it) == 6
        assert await it.answer("c") == b"hello"


@on_loops
async def test_new_reserve_waits_for_connections_of_others(tmp_path: Path) -> None:
    async with reloadable(tmp_path, TOTAL + echo("a")) as it:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(await it.connect("a")) for _ in range(10)]
            for client in clients:
                client.send(b"hello")
                assert await read_some(client, 5) == b"hello"
            await it.reload(TOTAL + echo("a") + echo("b", "reserve = 3"))
            assert shared(it) == 7
            with await it.connect("b") as refused:
                assert await read_all(refused) == b"refused: limit\n"
            clients.pop().close()
            await eventually(lambda: it.listener("a").connections == 9, "the end of a connection")
            assert await it.answer("b") == b"hello"


@on_loops
async def test_reserves_that_leave_nothing_of_the_total(tmp_path: Path) -> None:
    """The file would do, with its larger total; that needs a restart."""
    async with reloadable(tmp_path, TOTAL + echo("a")) as it:
        more = "[server]\ntotal-connections = 20\n" + echo("a") + echo("b", "reserve = 10")
        report = await it.reload(more)
        (line,) = report.problems
        assert "server.total-connections" in line
        assert "needs a stop and a start" in line
        assert shared(it) == 10
        assert [one.name for one in it.server.listeners] == ["a"]


@on_loops
async def test_reserve_of_a_removed_listener_is_not_given_away_at_once(tmp_path: Path) -> None:
    before = TOTAL + echo("a") + echo("b", "reserve = 6")
    async with reloadable(tmp_path, before) as it:
        with await it.connect("b") as client:
            client.send(b"begin")
            assert await read_some(client, 5) == b"begin"
            new = TOTAL + echo("a") + echo("c", "reserve = 6")
            (line,) = (await it.reload(new)).problems
            assert "the reserves of removed listeners are still part of it" in line
            assert (await it.reload(TOTAL + echo("a"))).succeeded
            assert not (await it.reload(new)).applied
            client.send(b"end")
        await eventually(lambda: shared(it) == 10, "the reserve")
        assert (await it.reload(new)).succeeded
        assert shared(it) == 4
