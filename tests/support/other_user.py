"""For tests of `server.run-as`: a user without rights, and an interpreter that it can read.

Rules of this file: the host's permissions are not changed. Where the interpreter or the package are
in a directory that only root may enter, such as /root, the program gets a mount namespace in which
that directory holds nothing else and may be entered.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastlisten

__all__ = ["NOBODY", "entering", "needs_root", "status_of", "user_directory"]

NOBODY = pwd.getpwnam("nobody")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")

#: What the program reads while it runs.
_READ = (
    Path(sys.base_prefix),
    Path(sys.prefix),
    Path(fastlisten.__file__).parent,
    Path(__file__).parents[1],
)


def _closed(path: Path) -> Path | None:
    """Return the first directory above a path that other users may not enter."""
    above = reversed(path.resolve().parents)
    return next((each for each in above if not each.stat().st_mode & stat.S_IXOTH), None)


def entering() -> tuple[str, ...]:
    """Return the wrapper of a program that other users can go on running; empty if not needed."""
    places: dict[Path, list[Path]] = {}
    for path in _READ:
        closed = _closed(path)
        if closed is not None and path.resolve() not in places.setdefault(closed, []):
            places[closed].append(path.resolve())
    if not places:
        return ()
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs none /mnt"]
    number = 0
    for closed, paths in places.items():
        kept = []
        for path in paths:
            number += 1
            kept.append((f"/mnt/{number}", shlex.quote(str(path))))
            lines += [f"mkdir {kept[-1][0]}", f"mount --rbind {kept[-1][1]} {kept[-1][0]}"]
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed))}")
        for aside, place in kept:
            lines += [f"mkdir -p {place}", f"mount --rbind {aside} {place}"]
    return ("unshare", "--mount", "sh", "-c", "; ".join((*lines, 'exec "$@"')), "sh")


@contextlib.contextmanager
def user_directory() -> Iterator[Path]:
    """Make a directory that all users may enter; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="fastlisten-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def status_of(pid: int) -> dict[str, list[str]]:
    """Return the words of each line in a process's status, by the line's name (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
