"""The one lock of an account: whoever changes its files or its index holds it.

Rules of this file: blocking. flock(2) keeps processes apart and a mutex the threads of this one,
which share a descriptor. A crash of its holder frees it. The times of the file are when its holder
last announced a change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from types import TracebackType

__all__ = ["AccountLock"]


class AccountLock:
    """A lock in a file, which is made if it is missing; not to be taken twice by one thread.

    Args:
        path: the file; its directory exists.
    """

    __slots__ = ("_fd", "_mutex", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._fd = self._opened()

    def __enter__(self) -> None:
        self._mutex.acquire()
        try:
            while True:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                if self._is_current():
                    return
                # Somebody has restored the directory from a backup: others lock the new file.
                os.close(self._fd)
                self._fd = -1
                self._fd = self._opened()
        except BaseException:
            self._mutex.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._mutex.release()

    def announce(self) -> None:
        """Tell whoever watches the file, while the lock is held, that something has changed."""
        with contextlib.suppress(OSError):  # it is done, whoever hears of it
            os.utime(self._fd)

    def close(self) -> None:
        """Close the file; the lock is not held."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False
