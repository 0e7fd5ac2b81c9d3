"""Spools: where messages are written before they are delivered.

Rules of this file: blocking system calls, to be run in a worker thread. A spool has one directory,
tmp/; a maildir is a spool that has more of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from fastlisten.hostnames import hostname_for_filenames
from fastlisten.private_files import sync_directory

__all__ = [
    "STALE_AFTER",
    "Spool",
    "make_directories",
    "unique_name",
]

#: Seconds after which a file in tmp/ must be left over from a crash: 36 hours, as the format says.
STALE_AFTER = 36 * 3600

_counter = itertools.count()

#: The process that this state belongs to, and the last part of the names that it makes.
_process = (0, "")


def unique_name() -> str:
    """Return a file name that no other delivery uses, on this host or another.

    Seconds, then microseconds, process, counter and 32 random bits of the process, then the host.
    The format asks for only one of those in the middle, but each makes up for the weakness of
    another (clocks that are set back, process ids that are reused, or shared by containers).
    """
    global _process
    pid = os.getpid()
    if _process[0] != pid:  # the first call, or the first after a fork
        _process = (pid, f"R{secrets.token_hex(4)}.{hostname_for_filenames()}")
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{seconds}.M{nanoseconds // 1000}P{pid}Q{next(_counter)}{_process[1]}"


def make_directories(root: str, parts: Iterable[str]) -> None:
    """Make a directory, those above it and `parts` in it, durable and for the owner only."""
    path = Path(root)
    missing = [part for part in (path, *path.parents) if not part.is_dir()]
    for part in [*reversed(missing), *(path / name for name in parts)]:
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o700)
            sync_directory(part.parent)


class Spool:
    """A directory whose tmp/ holds messages that are being written, and what crashes have left.

    Paths are strings here: a `pathlib.Path` for each would take a third of the time of a delivery.

    Attributes:
        path: its directory; need not exist yet.
        tmp: where messages are written.
    """

    __slots__ = ("path", "tmp")

    def __init__(self, path: str) -> None:
        self.path = path
        self.tmp = os.path.join(path, "tmp")

    def prepare(self) -> None:
        """Make its directories, and those above it, durable and for the owner only."""
        make_directories(self.path, ("tmp",))

    def clean(self, now: float | None = None) -> int:
        """Remove what crashes have left in tmp/.

        Args:
            now: the time to compare with, in seconds since the epoch; the current time if None.

        Returns:
            The number of files removed.
        """
        oldest = (time.time() if now is None else now) - STALE_AFTER
        removed = 0
        try:
            entries = list(os.scandir(self.tmp))
        except FileNotFoundError:
            return 0
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if max(status.st_mtime, status.st_atime) < oldest and not entry.is_dir(
                    follow_symlinks=False
                ):
                    os.unlink(entry.path)
                    removed += 1
        return removed
