"""Threads for what waits: a pool that does with fewer if there can be no more.

Rules of this file: `concurrent.futures` starts a thread after it has queued the work for it. If
that fails (RLIMIT_NPROC, pids.max, no memory), its caller gets an error, and the work is done all
the same by a thread that is there already. Here it just waits for that one.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

__all__ = ["WorkerThreads"]

logger = logging.getLogger("fastlisten.mail")


class WorkerThreads(ThreadPoolExecutor):
    """A pool of threads, of which the first one is started at once.

    Args:
        most: threads there may be.
        name: what the threads' names begin with.

    Raises:
        RuntimeError: not even one can be started.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self._warned = False
        self.submit(int)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                raise
            if not self._warned:
                self._warned = True
                logger.warning(
                    "threads of %s: %s; %d are at work", self._thread_name_prefix, error,
                    len(self._threads),
                )  # fmt: skip
