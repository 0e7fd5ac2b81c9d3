"""Many reloads under load: clients notice nothing, and nothing is left behind.

Rules of this file: every attempt of a client is counted. Descriptors, tasks, slots, places and
memory are counted in the same process, after a few reloads that load what is loaded once.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from support.figures import show
from support.kernel import open_descriptors
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.waiting import PATIENCE, eventually

from fastlisten.loop.engines import engine_for

RELOADS = 100
#: At least one attempt for each reload.
CLIENTS = 4


def variants(count: int) -> str:
    """Return a configuration in which everything but the first listener changes."""
    id, other = f"new{count % 2}", f"127.0.0.{2 + count % 2}:0"
    lines = (f'hostname = "h{count % 3}.example"', f"max-connections = {10 + count % 5}")
    return echo("it") + echo(id) + echo("moves", bind=other) + echo("varies", *lines)


class Attempts:
    """Clients that connect, speak and leave until they are stopped."""

    def __init__(self, it: Reloadable, id: str) -> None:
        self.served = 0
        self.failed: list[BaseException | bytes] = []
        self._it, self._id = it, id
        self._tasks = [asyncio.create_task(self._run()) for _ in range(CLIENTS)]
        self._ends = False

    async def _run(self) -> None:
        while not self._ends:
            try:
                answer = await self._it.answer(self._id)
            except (OSError, TimeoutError) as error:
                self.failed.append(error)
                continue
            if answer == b"hello":
                self.served += 1
            else:
                self.failed.append(answer)

    async def stop(self) -> None:
        self._ends = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), PATIENCE)


def left(it: Reloadable) -> dict[str, object]:
    """Return what must be the same after many reloads."""
    gc.collect()
    engine = engine_for(asyncio.get_running_loop())
    census = engine.census()
    held = [one.places.count for one in it.server.listeners if one.places is not None]
    arena = it.server._arena
    assert arena is not None
    return {
        "descriptors": len(open_descriptors()),
        "tasks": len(asyncio.all_tasks()),
        "slots": {name: census[name] for name in ("listening", "listeners", "open", "parked")},
        "places": held,
        "rows": arena.rows,
        "handlers": len(it.server._worker._started),
    }


async def settled(it: Reloadable) -> None:
    """Wait until listeners and handlers of earlier reloads are gone."""
    worker = it.server._worker
    await eventually(lambda: not (worker._drains or worker._stops), "the end of drains and stops")


@on_loops
async def test_no_attempt_is_lost_and_nothing_leaks(tmp_path: Path) -> None:
    async with reloadable(tmp_path, variants(0)) as it:
        for count in range(6):
            assert (await it.reload(variants(count))).succeeded
        await it.reload(variants(0))
        await settled(it)
        before = left(it)
        attempts = {id: Attempts(it, id) for id in ("it", "varies")}
        for count in range(1, RELOADS + 1):
            seen = {id: one.served for id, one in attempts.items()}
            report = await it.reload(variants(count % 30))
            assert report.succeeded, report
            await eventually(lambda: all(attempts[id].served > seen[id] for id in seen), "clients")  # noqa: B023
        for one in attempts.values():
            await one.stop()
            assert one.failed == []
            assert one.served >= RELOADS
        await it.reload(variants(0))
        await settled(it)
        # The last connections have been answered, and are closed a moment later.
        await eventually(lambda: left(it)["slots"] == before["slots"], "the last connections")
        assert left(it) == before
    served = sum(one.served for one in attempts.values())
    show(f"{RELOADS} reloads, {served:,} attempts, 0 failed; left behind: 0 of {', '.join(before)}")


@on_loops
async def test_memory_does_not_grow(tmp_path: Path) -> None:
    async with reloadable(tmp_path, variants(0)) as it:
        sizes = []
        tracemalloc.start()
        try:
            for count in range(60):
                assert (await it.reload(variants(count % 30))).succeeded
                if count % 30 == 29:
                    await settled(it)
                    gc.collect()
                    sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        # A reload of this configuration makes some 300 kB of objects.
        assert sizes[1] - sizes[0] < 100_000
