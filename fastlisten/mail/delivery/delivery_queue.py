"""Group commit: messages that are ready at the same moment share what can be shared.

Rules of this file: who works on what, and in which order; what a job does is up to it. All jobs of
a group go through each step before the next one begins:

    write    each into its own files, synced one by one: several threads do this at once, and the
             filesystem's journal commits for all of them together
    move     each is renamed into new/
    sync     each new/ once for the whole group
    settle   each by itself: an error concerns those whose file or directory it is
    worked   one call to the loop for all

A 250 still means that the file and its directory are synced, and no message waits for others: a job
that arrives while a thread is idle is begun at once. Groups form from jobs that arrive while the
threads are busy, or before a thread that has been woken gets to run. A thread takes its share and
leaves the rest to others, because files are synced faster in parallel than one after another.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from fastlisten.mail.loop_calls import call_on
from fastlisten.private_files import sync_directory

__all__ = ["DeliveryQueue", "Job", "run_together", "sync_directories"]

logger = logging.getLogger("fastlisten.mail")

#: The most jobs in a group: the first one's client waits for the files of all to be synced.
LARGEST_GROUP = 16


class Job(Protocol):
    """One step of a message. All but `worked` is called in a thread, and none of it raises.

    Attributes:
        loop: where the message's owner is.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the message's owner."""

    def write(self) -> bool:
        """Do what concerns this message alone; return whether it is to be moved now."""

    def move(self) -> Collection[str]:
        """Rename the files into new/; return the directories to be synced, none if it failed."""

    def settle(self, errors: Mapping[str, OSError]) -> None:
        """Take what has become of the directories: those that could not be synced, and why."""

    def worked(self) -> None:
        """Go on, on the loop."""

    def orphaned(self) -> None:
        """Leave nothing behind: the loop has been closed."""


def sync_directories(paths: Iterable[str]) -> dict[str, OSError]:
    """Sync directories, each once; return the errors of those that could not be synced."""
    errors = {}
    for path in dict.fromkeys(paths):
        try:
            sync_directory(path)
        except OSError as error:
            errors[path] = error
    return errors


def run_together(jobs: Sequence[Job]) -> None:
    """Do some jobs as a group, and tell their loops. Blocks."""
    ready = [job for job in jobs if job.write()]
    if ready:
        errors = sync_directories([path for job in ready for path in job.move()])
        for job in ready:
            job.settle(errors)
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, those in by_loop.items():
        if not call_on(loop, functools.partial(_tell, those)):
            for job in those:
                job.orphaned()


def _tell(jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            job.worked()
        except Exception:
            logger.exception("internal error after a delivery")  # the other owners must be told


class DeliveryQueue:
    """Jobs that wait for a thread.

    Args:
        pool: where the threads come from.
        threads: how many may work at a time.
    """

    __slots__ = ("_active", "_jobs", "_lock", "_pool", "_threads", "_waking")

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool = pool
        self._threads = threads
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._active = 0  # threads that work, or have been woken
        self._waking = False  # one has been woken and has not looked yet

    def submit(self, job: Job) -> None:
        """Have a job done; here and now if the pool has been shut down."""
        with self._lock:
            self._jobs.append(job)
            wake = self._counts_another()
        if wake and not self._wake():
            self._work()

    def _counts_another(self) -> bool:
        """Count one more thread, to be woken, if jobs wait for one; called with the lock."""
        if not self._jobs or self._waking or self._active >= self._threads:
            return False
        self._waking = True
        self._active += 1
        return True

    def _wake(self) -> bool:
        try:
            self._pool.submit(self._work)
        except RuntimeError:
            return False
        return True

    def _work(self) -> None:
        """Do groups of jobs until there are none."""
        woken = True
        while True:
            with self._lock:
                if woken:
                    self._waking = woken = False
                if not self._jobs:
                    self._active -= 1
                    return
                idle = self._threads - self._active
                share = min(LARGEST_GROUP, -(-len(self._jobs) // (idle + 1)))
                group = [self._jobs.popleft() for _ in range(share)]
                wake = self._counts_another()
            if wake and not self._wake():  # the pool is shut down: the rest is done here
                with self._lock:
                    self._waking = False
                    self._active -= 1
            run_together(group)
