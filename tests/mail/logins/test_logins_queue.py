"""The queue of verifications: order by rank, eviction, cancellation, exceptions.

Rules of this file: work is held by events, never timed.
"""

from __future__ import annotations

import threading

import pytest

from fastlisten.mail.logins import verification_queue
from fastlisten.mail.logins.verification_queue import (
    QueueFullError,
    SharedSlots,
    VerificationQueue,
)


def test_queue_runs_lowest_rank_and_evicts_highest() -> None:
    go, order = threading.Event(), list[str]()
    queue: VerificationQueue[None] = VerificationQueue(1, 4, "test")
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        assert go.wait(30)

    first = queue.submit(9, hold)
    assert begun.wait(30)
    waiting = {
        name: queue.submit(rank, lambda name=name: order.append(name))  # type: ignore[misc]
        for name, rank in (("c", 1), ("d", 2), ("e", 2), ("a", 0))
    }
    with pytest.raises(QueueFullError):
        queue.submit(2, lambda: None)
    waiting["b"] = queue.submit(0, lambda: order.append("b"))
    with pytest.raises(QueueFullError):
        waiting.pop("e").result(30)
    waiting.pop("c").cancel()  # its place is free
    waiting["f"] = queue.submit(7, lambda: order.append("f"))
    assert len(queue) == 4
    go.set()
    first.result(30)
    for future in waiting.values():
        future.result(30)
    assert order == ["a", "b", "d", "f"]
    queue.close()
    with pytest.raises(RuntimeError):
        queue.submit(0, lambda: None)


def test_evicted_and_cancelled_work_does_not_pile_up() -> None:
    """The thread pool's own queue stays short."""
    go = threading.Event()
    queue: VerificationQueue[object] = VerificationQueue(1, 2, "test")
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        assert go.wait(30)

    queue.submit(0, hold)
    assert begun.wait(30)
    for number in range(200):
        queue.submit(200 - number, lambda: None)
    for _ in range(200):
        queue.submit(-1, lambda: None).cancel()
    assert queue._pool._work_queue.qsize() <= 2
    go.set()
    queue.close()


def test_exception_of_work_reaches_the_future() -> None:
    queue: VerificationQueue[int] = VerificationQueue(1, 2, "test")
    with pytest.raises(ZeroDivisionError):
        queue.submit(0, lambda: 1 // 0).result(30)
    assert queue.submit(0, lambda: 1).result(30) == 1
    queue.close()


class Slots:
    """As many slots as a semaphore has; takes are counted."""

    def __init__(self, count: int) -> None:
        self.free = threading.Semaphore(count)
        self.looks = 0

    def take(self) -> bool:
        self.looks += 1
        return self.free.acquire(blocking=False)

    def give(self) -> None:
        self.free.release()


def test_queues_share_slots() -> None:
    slots = Slots(2)
    shared = SharedSlots(slots, 10)
    queues = [VerificationQueue[None](2, 0, "test", lambda: shared) for _ in range(3)]
    lock, running, most = threading.Lock(), [0], [0]
    both = threading.Barrier(2)

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait(30)  # the jobs end in pairs: two do run at a time
        with lock:
            running[0] -= 1

    futures = [queue.submit(0, work) for _ in range(4) for queue in queues]
    for future in futures:
        future.result(30)
    assert most == [2]
    for queue in queues:
        queue.close()
    assert slots.free.acquire(blocking=False)
    assert slots.free.acquire(blocking=False)


def test_places_are_those_of_one_of_several_workers() -> None:
    go, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go.wait(30)

    shared = SharedSlots(Slots(2), 1)
    queue = VerificationQueue[None](1, 5, "test", lambda: shared)
    futures = [queue.submit(0, hold)]
    assert begun.wait(30)
    futures.append(queue.submit(0, hold))
    with pytest.raises(QueueFullError):
        queue.submit(0, hold)
    go.set()
    for future in futures:
        future.result(30)
    queue.close()


def test_jobs_run_without_slots_that_nobody_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification_queue, "PATIENCE", 0.05)
    monkeypatch.setattr(verification_queue, "WITHOUT", 3600.0)
    slots = Slots(0)
    shared = SharedSlots(slots, 5)
    queue = VerificationQueue[int](1, 5, "test", lambda: shared)
    assert queue.submit(0, lambda: 1).result(30) == 1
    looks = slots.looks
    assert looks > 0
    # The next ones do not wait.
    assert [queue.submit(0, lambda: 2).result(30) for _ in range(5)] == [2] * 5
    assert slots.looks == looks
    queue.close()
    assert not slots.free.acquire(blocking=False)


def test_closing_ends_the_wait_for_a_slot() -> None:
    slots = Slots(0)
    shared = SharedSlots(slots, 5)
    queue = VerificationQueue[int](1, 5, "test", lambda: shared)
    future = queue.submit(0, lambda: 1)
    queue.close()
    assert future.cancelled()
