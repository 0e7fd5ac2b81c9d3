"""Spools: where messages are written before they are delivered.

Rules of this file: plain blocking system calls, to be run in a worker thread. A spool has one
directory, tmp/; a maildir is a spool that has more.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from fastlisten.hostnames import name_in_files
from fastlisten.private_files import sync_directory

__all__ = [
    "STALE_AFTER",
    "Spool",
    "make_directories",
    "unique_name",
]

#: Seconds after which a file in tmp/ is left over from a crash: 36 hours, as the format says.
STALE_AFTER = 36 * 3600

_counter = itertools.count()

#: The process that this module's state is of, and the last part of the names it gives.
_process = (0, "")


def unique_name() -> str:
    """Return a file name that no other delivery uses, on this host or on another.

    Seconds, then microseconds, process, counter and 32 bits that are random for each process,
    then the host: the format asks for one of the middle ones, and each covers another's weakness
    (clocks that are set back, process ids that are used again, or shared by containers).
    """
    global _process
    pid = os.getpid()
    if _process[0] != pid:  # the first call, or the first after a fork
        _process = (pid, f"R{secrets.token_hex(4)}.{name_in_files()}")
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{seconds}.M{nanoseconds // 1000}P{pid}Q{next(_counter)}{_process[1]}"


def make_directories(root: str, parts: Iterable[str]) -> None:
    """Make a directory, those above it and some in it, durable and for the owner alone."""
    path = Path(root)
    missing = [part for part in (path, *path.parents) if not part.is_dir()]
    for part in [*reversed(missing), *(path / name for name in parts)]:
        with contextlib.suppress(FileExistsError):
            part.mkdir(mode=0o700)
            sync_directory(part.parent)


class Spool:
    """A directory whose tmp/ holds messages on their way, and what crashes have left.

    Paths are strings here: making a `pathlib.Path` of each takes a third of a delivery's time.

    Attributes:
        path: its directory; need not exist yet.
        tmp: where messages are written.
    """

    __slots__ = ("path", "tmp")

    def __init__(self, path: str) -> None:
        self.path = path
        self.tmp = os.path.join(path, "tmp")

    def prepare(self) -> None:
        """Make its directories, and those above it, durable and for the owner alone."""
        make_directories(self.path, ("tmp",))

    def clean(self, now: float | None = None) -> int:
        """Remove what crashes have left in tmp/.

        Args:
            now: the time to compare with, in seconds since the epoch, the clock's if not given.

        Returns:
            How many files were removed.
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
