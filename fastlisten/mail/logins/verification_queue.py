"""Threads that verify passwords, and the queue for them: the least suspicious attempt is next.

Rules of this file: it knows nothing of passwords. Each job has a rank, the number of failures that
speak against it. The lowest rank is next; among equals, the first that came. When the queue is
full, a new job replaces the last one of the highest rank, if its own rank is lower. So those who
guess can fill the queue for each other, but for nobody else.

With several workers a thread takes a slot, which all workers share, before it takes a job. Threads
look for one again and again; that is rare, since a job takes much longer than a look. If there is
none for long, a worker that has some is stopped, and jobs are run without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from fastlisten.errors import FastlistenError
from fastlisten.mail.worker_threads import WorkerThreads

__all__ = ["QueueFullError", "SharedSlots", "Slots", "VerificationQueue"]

_T = TypeVar("_T")

#: Seconds between two looks for a slot. A verification takes a tenth of a second.
LOOK = 0.02

#: Seconds after which a thread does without a slot. If all workers have full queues it waits for
#: half a second on average.
PATIENCE = 10.0

#: Seconds for which no thread looks for a slot after one has waited in vain.
WITHOUT = 10.0


class Slots(Protocol):
    """Counts the jobs that run in all workers (`fastlisten._arena.Places`)."""

    def take(self) -> bool:
        """Count another one; false if there are as many as may be."""

    def give(self) -> None:
        """Count one less."""


@dataclass(frozen=True, slots=True)
class SharedSlots:
    """What this process may do beside other workers.

    Attributes:
        slots: one for each job that runs.
        places: how many jobs may wait here.
    """

    slots: Slots
    places: int


class QueueFullError(FastlistenError):
    """There is no place left in the queue."""


class _Job(Generic[_T]):
    """A job that waits."""

    __slots__ = ("future", "number", "rank", "work")

    def __init__(self, rank: int, number: int, work: Callable[[], _T]) -> None:
        self.rank = rank
        self.number = number
        self.work = work
        self.future: Future[_T] = Future()

    @property
    def order(self) -> tuple[int, int]:
        return self.rank, self.number


class VerificationQueue(Generic[_T]):
    """A fixed number of threads, and a bounded queue of jobs for them.

    Its length is the number of jobs that wait.
    """

    def __init__(
        self,
        threads: int,
        places: int,
        name: str,
        shared: Callable[[], SharedSlots | None] = lambda: None,
    ) -> None:
        """Make an empty queue.

        Args:
            threads: how many jobs run at a time.
            places: how many jobs may wait besides.
            name: what the threads' names begin with.
            shared: returns what is shared with other workers at present, if anything.
        """
        self._pool = WorkerThreads(threads, name)
        self._threads = threads
        self._places = places
        self._shared = shared
        self._without_until: float | None = None
        self._lock = threading.Lock()
        self._waiting: list[_Job[_T]] = []
        self._running = 0
        self._called = 0  # threads that have been woken and have not taken a job yet
        self._number = 0
        self._closed = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def submit(self, rank: int, work: Callable[[], _T]) -> Future[_T]:
        """Add a job.

        Args:
            rank: how many failures speak against it; the lowest is next.
            work: called in a thread.

        Returns:
            The future of its result: a QueueFullError if a job of a lower rank takes its place.
            Cancelling it frees its place.

        Raises:
            QueueFullError: there is no place.
            RuntimeError: the queue is closed.
        """
        displaced = None
        shared = self._shared()
        places = self._places if shared is None else shared.places
        with self._lock:
            if self._closed:
                raise RuntimeError("the queue is closed")
            if self._running + len(self._waiting) >= self._threads + places:
                last = max(self._waiting, key=lambda job: job.order, default=None)
                if last is None or last.rank <= rank:
                    raise QueueFullError
                self._waiting.remove(last)
                displaced = last
            self._number += 1
            job = _Job(rank, self._number, work)
            if self._called <= len(self._waiting):
                self._pool.submit(self._next)
                self._called += 1
            self._waiting.append(job)
        job.future.add_done_callback(lambda _: self._leave(job))
        if displaced is not None and displaced.future.set_running_or_notify_cancel():
            displaced.future.set_exception(QueueFullError())
        return job.future

    def close(self) -> None:
        """Cancel the jobs that wait, and wait for those that run."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for job in waiting:
            job.future.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, job: _Job[_T]) -> None:
        """Free the place of a job that has been cancelled."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)

    def _next(self) -> None:
        """Run the next job, on a thread, once there is a slot."""
        shared = self._shared()
        taken = shared is not None and self._take(shared.slots)
        try:
            self._run_next()
        finally:
            if shared is not None and taken:
                shared.slots.give()

    def _take(self, slots: Slots) -> bool:
        """Take a slot; return False to do without, or when the queue has been closed."""
        now = time.monotonic()
        if self._without_until is not None and now < self._without_until:
            return False
        end = now + PATIENCE
        while not slots.take():
            if time.monotonic() >= end:
                self._without_until = time.monotonic() + WITHOUT
                return False
            if self._closed:
                return False
            time.sleep(LOOK)
        return True

    def _run_next(self) -> None:
        with self._lock:
            self._called -= 1
            if not self._waiting:
                return
            job = min(self._waiting, key=lambda job: job.order)
            self._waiting.remove(job)
            self._running += 1
        result: _T | None = None
        failure: BaseException | None = None
        wanted = job.future.set_running_or_notify_cancel()
        if wanted:
            try:
                result = job.work()
            except BaseException as error:
                failure = error
        with self._lock:
            self._running -= 1
        if failure is not None:
            job.future.set_exception(failure)
        elif wanted:
            job.future.set_result(cast(_T, result))
