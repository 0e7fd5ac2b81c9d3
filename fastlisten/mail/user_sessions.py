"""Counts the sessions of users, over all workers, with locks on a file.

    octets of the file    [user A: 0 1 2 ... WIDTH-1] ... [user B: 0 1 2 ... WIDTH-1]

A session locks the first free octet of its user (fcntl(2), record locks); when as many are locked
as may be, there is no session more. The kernel gives the locks of a process back when it ends,
however it ends.

Rules of this file: the file has no content. It is opened before workers are forked, and must be
opened only once in each: closing any descriptor of it gives all locks of the process back.
"""

from __future__ import annotations

import fcntl
import hashlib

__all__ = ["WIDTH", "UserSessions", "share_user_sessions", "user_sessions"]

#: Octets of each user, and so the most sessions that can be counted. With 48 bits of a user's
#: digest, offsets have 63 bits.
WIDTH = 1 << 15


class UserSessions:
    """The sessions of this process, counted with those of others. It is for one thread.

    Args:
        file: a descriptor of the file, open for writing; processes have inherited it from another.
            Negative if this is the only process.
    """

    def __init__(self, file: int = -1) -> None:
        self._file = file
        #: Which of their octets this process has locked: a process does not exclude itself.
        self._held: dict[str, list[int]] = {}

    def take(self, user: str, most: int) -> bool:
        """Count another session; false if there are as many as may be.

        Args:
            user: whose it is; any text.
            most: how many there may be, up to `WIDTH`. The result is exact as long as it is the
                same for all sessions of a user.
        """
        held = self._held.get(user, [])
        if len(held) >= most:
            return False
        first = self._first(user)
        for octet in range(first, first + most):
            if octet not in held and self._lock(octet):
                self._held[user] = [*held, octet]
                return True
        return False

    def give(self, user: str) -> None:
        """Count one less; does nothing if this process has none."""
        held = self._held.get(user)
        if held:
            octet = held.pop()
            if self._file >= 0:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, octet)
            if not held:
                del self._held[user]

    def _lock(self, octet: int) -> bool:
        if self._file < 0:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, octet)
        except OSError:  # another process has it, or the kernel has no memory for the lock
            return False
        return True

    def _first(self, user: str) -> int:
        """Return a user's first octet."""
        digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=6)
        return int.from_bytes(digest.digest(), "big") * WIDTH


_shared = UserSessions()


def share_user_sessions(file: int) -> None:
    """Count the sessions of this process together with those of other workers.

    Args:
        file: as of `UserSessions`.
    """
    global _shared
    _shared = UserSessions(file)


def user_sessions() -> UserSessions:
    """Return what counts the sessions of this process's users."""
    return _shared
