"""The queue of jobs and its threads: who is woken, how often, and what happens without a pool.

Rules of this file: a pool that runs its work only when a test says so; so there is no timing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from fastlisten.mail.delivery import delivery_queue
from fastlisten.mail.delivery.delivery_queue import DeliveryQueue, run_together

THREADS = 4


class Pool:
    """A pool that keeps its work.

    Attributes:
        work: what waits for a thread.
        closed: it has been shut down.
    """

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.closed = False

    def submit(self, work: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.work.append(work)

    def run(self) -> None:
        """Do all work, and what it leads to."""
        while self.work:
            self.work.pop(0)()


class Job:
    """Writes nothing; notes what it was asked for in `said`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, broken: bool = False) -> None:
        self.loop = loop
        self.said: list[str] = []
        self._broken = broken

    def write(self) -> bool:
        self.said.append("write")
        return False

    def move(self) -> Collection[str]:
        raise AssertionError("it is not to be moved")

    def settle(self, errors: Mapping[str, OSError]) -> None:
        raise AssertionError("it was not moved")

    def worked(self) -> None:
        self.said.append("worked")
        if self._broken:
            raise ValueError("on purpose")

    def orphaned(self) -> None:
        self.said.append("orphaned")


def queue_of(pool: Pool) -> DeliveryQueue:
    return DeliveryQueue(cast(ThreadPoolExecutor, pool), THREADS)


def on_a_loop(test: Callable[[], None], jobs: list[Job]) -> None:
    """Run a function on a loop; check that all jobs are done once and their owners told."""

    async def main() -> None:
        test()
        await asyncio.sleep(0)  # what `call_soon_threadsafe` was given
        for job in jobs:
            assert job.said == ["write", "worked"]

    asyncio.run(main())


def jobs_on_this_loop(count: int, into: list[Job]) -> list[Job]:
    made = [Job(asyncio.get_running_loop()) for _ in range(count)]
    into += made
    return made


def test_jobs_that_come_together_wake_one_thread() -> None:
    """It wakes the next one when it has taken its share."""
    jobs: list[Job] = []

    def test() -> None:
        pool = Pool()
        queue = queue_of(pool)
        for job in jobs_on_this_loop(3, jobs):
            queue.submit(job)
        assert len(pool.work) == 1
        pool.run()

    on_a_loop(test, jobs)


def test_no_more_threads_are_woken_than_there_may_be() -> None:
    jobs: list[Job] = []

    def test() -> None:
        pool, most = Pool(), 0
        queue = queue_of(pool)
        for job in jobs_on_this_loop(200, jobs):
            queue.submit(job)
        while pool.work:
            most = max(most, queue._active)
            pool.work.pop(0)()
        assert 1 <= most <= THREADS
        assert queue._active == 0

    on_a_loop(test, jobs)


def test_threads_that_have_ended_are_woken_again() -> None:
    jobs: list[Job] = []

    def test() -> None:
        pool = Pool()
        queue = queue_of(pool)
        for job in jobs_on_this_loop(3 * THREADS, jobs):
            queue.submit(job)
            assert len(pool.work) == 1
            pool.run()

    on_a_loop(test, jobs)


def test_jobs_after_the_end_of_the_pool_are_done_at_once() -> None:
    jobs: list[Job] = []

    def test() -> None:
        pool = Pool()
        queue = queue_of(pool)
        pool.closed = True
        for job in jobs_on_this_loop(3 * THREADS, jobs):
            queue.submit(job)
            assert job.said == ["write"]

    on_a_loop(test, jobs)


def test_pool_that_ends_while_a_thread_works() -> None:
    """The thread does what is left, and later jobs are done by whoever submits them."""
    jobs: list[Job] = []

    def test() -> None:
        pool = Pool()
        queue = queue_of(pool)
        for job in jobs_on_this_loop(3 * THREADS, jobs):
            queue.submit(job)
        pool.closed = True
        pool.run()
        assert [job.said for job in jobs] == [["write"]] * len(jobs)
        for job in jobs_on_this_loop(3 * THREADS, jobs):
            queue.submit(job)
            assert job.said == ["write"]

    on_a_loop(test, jobs)


def test_owner_that_fails_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        jobs: list[Any] = [Job(loop), Job(loop, broken=True), Job(loop)]
        run_together(jobs)
        await asyncio.sleep(0)
        assert [job.said for job in jobs] == [["write", "worked"]] * 3

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["internal error after a delivery"]


def test_jobs_of_a_closed_loop_are_orphaned() -> None:
    closed = asyncio.new_event_loop()
    closed.close()

    async def main() -> None:
        jobs: list[Any] = [Job(closed), Job(asyncio.get_running_loop())]
        run_together(jobs)
        await asyncio.sleep(0)
        assert [job.said[1] for job in jobs] == ["orphaned", "worked"]

    asyncio.run(main())


def test_thread_leaves_their_share_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are synced faster in parallel than one after another."""
    jobs: list[Job] = []
    groups: list[int] = []

    def noted(group: list[Any]) -> None:
        groups.append(len(group))
        run_together(group)

    monkeypatch.setattr(delivery_queue, "run_together", noted)

    def test() -> None:
        pool = Pool()
        queue = queue_of(pool)
        for job in jobs_on_this_loop(2 * THREADS, jobs):
            queue.submit(job)
        pool.run()

    on_a_loop(test, jobs)
    assert groups[0] == 2
    assert sum(groups) == 2 * THREADS
