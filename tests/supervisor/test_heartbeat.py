"""Workers whose event loops do not turn are found; slow looks and stopped supervisors find none.

Rules of this file: the supervisor's clock is a number. A loop that turns is a real one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable

import pytest
from support.forked import MAY_HAVE_THREADS, Child
from support.loops import LoopFactory
from support.waiting import eventually, until

from fastlisten._arena import Arena
from fastlisten.runtime.supervisor import heartbeat
from fastlisten.runtime.supervisor.heartbeat import HUNG_AFTER, INTERVAL, Heartbeat, HungWorkers

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Watch:
    """A supervisor that looks whenever it should, at workers with the process ids 1, 2, ..."""

    def __init__(self, workers: int) -> None:
        self.now = 1000.0
        self.workers = HungWorkers(lambda: self.now)
        self.beats = dict.fromkeys(range(1, workers + 1), 0)

    def look(
        self, alive: Iterable[int] = (), after: float = INTERVAL
    ) -> tuple[list[int], list[int]]:
        """Look again, after workers have shown that they are alive."""
        self.now += after
        for pid in alive:
            self.beats[pid] += 1000
        return self.workers.look(self.beats)


def test_worker_without_heartbeats_is_found_once() -> None:
    watch = Watch(2)
    watch.look((1, 2))
    for _ in range(int(HUNG_AFTER)):
        assert watch.look((2,)) == ([], [])
        assert watch.workers.hung == {}
    assert watch.look((2,)) == ([1], [])
    assert watch.workers.hung == {1: HUNG_AFTER + 1}
    for _ in range(5):
        assert watch.look((2,)) == ([], [])
    assert watch.workers.hung.keys() == {1}


def test_worker_that_shows_itself_again_is_no_longer_hung() -> None:
    watch = Watch(1)
    for _ in range(20):
        watch.look()
    assert watch.workers.hung.keys() == {1}
    assert watch.look((1,)) == ([], [1])
    assert watch.workers.hung == {}
    assert watch.look() == ([], [])


def test_worker_that_has_ended_is_forgotten() -> None:
    watch = Watch(2)
    for _ in range(20):
        watch.look((2,))
    del watch.beats[1]
    assert watch.look((2,)) == ([], [])
    assert watch.workers.hung == {}
    # Another process may get its number.
    watch.beats[1] = 0
    assert watch.look((2,)) == ([], [])


def test_supervisor_that_was_stopped_does_not_blame_its_workers() -> None:
    watch = Watch(2)
    watch.look((1, 2))
    assert watch.look(after=3600) == ([], [])
    for _ in range(int(HUNG_AFTER)):
        assert watch.look((2,)) == ([], [])
    assert watch.look((2,)) == ([1], [])


def test_looks_may_be_late_and_frequent() -> None:
    watch = Watch(1)
    watch.look((1,))
    for _ in range(40):
        assert watch.look(after=0.1) == ([], [])
    for _ in range(2):
        assert watch.look((1,), after=2 * INTERVAL) == ([], [])
    assert watch.workers.deadline == watch.now + INTERVAL


def test_heartbeats_are_those_of_living_members() -> None:
    arena = Arena(1, 3)
    assert arena.heartbeats() == {}
    arena.join()
    assert arena.heartbeats() == {os.getpid(): 0}
    arena.beat(0)
    first = arena.heartbeats()[os.getpid()]
    assert first > 0

    def later() -> bool:
        arena.beat(0)
        return arena.heartbeats()[os.getpid()] > first

    until(later, "time to pass")
    arena.heal(0)
    assert arena.heartbeats() == {}
    arena.join()
    assert arena.heartbeats() == {os.getpid(): 0}


def test_loop_that_turns_shows_itself(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    arena = Arena(1)
    arena.join()

    async def main() -> None:
        beating = Heartbeat(arena, 0)
        seen: set[int] = set()

        def beats() -> bool:
            seen.add(arena.heartbeats()[os.getpid()])
            return len(seen) > 3

        await eventually(beats, "heartbeats")
        beating.stop()
        beating.stop()
        last = arena.heartbeats()
        await asyncio.sleep(2 * heartbeat.INTERVAL)  # a timer that is due after the next one
        assert arena.heartbeats() == last

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@MAY_HAVE_THREADS
def test_process_shares_its_heartbeats() -> None:
    arena = Arena(1, 2)

    def body(channel: socket.socket) -> None:
        member = arena.join()
        channel.send(b'"joined"')
        channel.recv(1)
        arena.beat(member)
        channel.send(b'"alive"')
        channel.recv(1)

    with Child(body, [arena.fd, *arena.wakeups]) as child:
        assert child.hear() == "joined"
        assert arena.heartbeats() == {child.pid: 0}
        child.channel.send(b"x")
        assert child.hear() == "alive"
        assert arena.heartbeats()[child.pid] > 0
