"""What the kernel knows about processes: descriptors, sockets, CPU time, whether they ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "cpu_time",
    "ended",
    "is_open",
    "open_below",
    "open_descriptors",
    "sockets",
    "starved",
    "wake_ups",
]


def open_descriptors() -> dict[int, str]:
    """Return the open descriptors of this process and what each refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of listdir itself
    return found


def open_below(directory: Path) -> list[str]:
    """Return the files and directories below a directory that this process has open.

    In a test with a server or a client of its own, sockets and other files come and go meanwhile.
    """
    return sorted(
        path for path in open_descriptors().values() if Path(path).is_relative_to(directory)
    )


def is_open(fd: int) -> bool:
    """Return whether this process has a descriptor of this number."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def sockets(pid: int) -> list[str]:
    """Return the sockets that a process has open."""
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sorted(name for name in names if name.startswith("socket:"))


@contextlib.contextmanager
def starved(pid: int, but: int = 0) -> Iterator[None]:
    """Let a process open no more descriptors, but so many, while the block runs."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in used)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    first = next(itertools.islice(free, but, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (first, limits[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def cpu_time(pid: int) -> float:
    """Return the CPU time that a process has used, in all its threads, in seconds.

    The clock id of a process is computed as in clock_getcpuclockid(3).
    """
    return time.clock_gettime((~pid << 3) | 2)


def wake_ups(pid: int) -> int:
    """Return how often a process with one thread went to sleep so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise LookupError("the kernel does not count context switches")


def ended(pid: int) -> bool:
    """Return whether a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
