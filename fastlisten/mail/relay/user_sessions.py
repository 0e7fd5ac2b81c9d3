"""Counts the sessions that each user has with a relay, over all workers, with locks on a file.

    octets of the file    [user A: 0 1 2 ... 9] ... [user B: 0 1 2 ... 9] ...

A session locks one octet of its user (fcntl(2), record locks); when all are locked, the user has as
many as may be. The kernel gives the locks of a process back when it ends, however it ends.

Rules of this file: the file has no content. It is opened before workers are forked, and must be
opened only once in each: closing any descriptor of it gives all locks of the process back.
"""

from __future__ import annotations

import fcntl
import hashlib

__all__ = ["UserSessions"]


class UserSessions:
    """The sessions of this process, counted with those of others. It is for one thread.

    Args:
        file: a descriptor of the file, open for writing; processes have inherited it from another.
        most: how many sessions a user may have.
    """

    def __init__(self, file: int, most: int) -> None:
        self._file = file
        self._most = most
        #: Which of their octets this process has locked: a process does not exclude itself.
        self._held: dict[str, list[int]] = {}

    def take(self, user: str) -> bool:
        """Count another session; false if there are as many as may be."""
        held = self._held.get(user, [])
        first = self._first(user)
        for octet in range(first, first + self._most):
            if octet not in held and self._lock(octet):
                self._held[user] = [*held, octet]
                return True
        return False

    def give(self, user: str) -> None:
        """Count one less; does nothing if this process has none."""
        held = self._held.get(user)
        if held:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, held.pop())
            if not held:
                del self._held[user]

    def _lock(self, octet: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, octet)
        except OSError:  # another process has it, or the kernel has no memory for the lock
            return False
        return True

    def _first(self, user: str) -> int:
        """Return a user's first octet; offsets have 63 bits."""
        digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=6)
        return int.from_bytes(digest.digest(), "big") * self._most
