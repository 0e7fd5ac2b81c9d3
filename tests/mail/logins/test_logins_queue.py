"""The queue of verifications: order by rank, eviction, cancellation, exceptions.

Rules of this file: work is held by events, never timed.
"""

from __future__ import annotations

import threading

import pytest

from fastlisten.mail.logins.verification_queue import QueueFullError, VerificationQueue


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
