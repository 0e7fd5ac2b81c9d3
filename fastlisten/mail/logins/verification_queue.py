"""Threads that verify passwords, and who is next: who is the least likely to guess.

Rules of this file: it knows nothing of passwords. Each piece of work has a rank, which is how many
failures speak against it. The lowest is next, of equal ones the first that came. When all places
are taken, a newcomer gets that of the last with the highest rank, if its own is lower: so those who
guess can fill the queue for each other, and for nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, cast

from fastlisten.errors import FastlistenError

__all__ = ["CrowdedError", "Queue"]

_T = TypeVar("_T")


class CrowdedError(FastlistenError):
    """There is no place left."""


class _Entry(Generic[_T]):
    """Work that waits."""

    __slots__ = ("future", "number", "rank", "work")

    def __init__(self, rank: int, number: int, work: Callable[[], _T]) -> None:
        self.rank = rank
        self.number = number
        self.work = work
        self.future: Future[_T] = Future()

    @property
    def order(self) -> tuple[int, int]:
        return self.rank, self.number


class Queue(Generic[_T]):
    """Some threads and some places.

    Its length is the number of those who wait.
    """

    def __init__(self, threads: int, places: int, name: str) -> None:
        """Make one.

        Args:
            threads: how much is done at a time.
            places: how many may wait besides.
            name: what the threads' names begin with.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threads + places
        self._lock = threading.Lock()
        self._waiting: list[_Entry[_T]] = []
        self._running = 0
        self._called = 0  # threads that have been called and have not taken anything yet
        self._number = 0
        self._closed = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def submit(self, rank: int, work: Callable[[], _T]) -> Future[_T]:
        """Have something done.

        Args:
            rank: what speaks against it; the lowest is next.
            work: to be called in a thread.

        Returns:
            What it will give; a CrowdedError if somebody with a lower rank takes its place. It may
            be cancelled, and its place is free then.

        Raises:
            CrowdedError: there is no place.
            RuntimeError: the queue is closed.
        """
        displaced = None
        with self._lock:
            if self._closed:
                raise RuntimeError("the queue is closed")
            if self._running + len(self._waiting) >= self._room:
                last = max(self._waiting, key=lambda entry: entry.order, default=None)
                if last is None or last.rank <= rank:
                    raise CrowdedError
                self._waiting.remove(last)
                displaced = last
            self._number += 1
            entry = _Entry(rank, self._number, work)
            if self._called <= len(self._waiting):
                self._pool.submit(self._next)
                self._called += 1
            self._waiting.append(entry)
        entry.future.add_done_callback(lambda _: self._leave(entry))
        if displaced is not None and displaced.future.set_running_or_notify_cancel():
            displaced.future.set_exception(CrowdedError())
        return entry.future

    def close(self) -> None:
        """Cancel what waits, and wait for what is being done."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for entry in waiting:
            entry.future.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, entry: _Entry[_T]) -> None:
        """Give back the place of work that is not waited for any more."""
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _next(self) -> None:
        """Do what is next, on a thread."""
        with self._lock:
            self._called -= 1
            if not self._waiting:
                return
            entry = min(self._waiting, key=lambda entry: entry.order)
            self._waiting.remove(entry)
            self._running += 1
        result: _T | None = None
        failure: BaseException | None = None
        wanted = entry.future.set_running_or_notify_cancel()
        if wanted:
            try:
                result = entry.work()
            except BaseException as error:
                failure = error
        with self._lock:
            self._running -= 1
        if failure is not None:
            entry.future.set_exception(failure)
        elif wanted:
            entry.future.set_result(cast(_T, result))
