"""Directories that servers deliver to, and counting the messages that arrived there.

Rules of this file: each sample has a directory of its own, removed afterwards. "memory" is a tmpfs,
where a sync costs nothing; "disk" is the filesystem of this source tree.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.build import OUTPUT
from benchmarks.process import MeasurementError

__all__ = ["RUN", "await_files", "count_files", "data_directory"]

#: The subdirectory for a candidate's own files: configuration, queue, sockets.
RUN = "run"

#: After this many seconds without another message, no more are expected.
STALLED = 5.0

#: The tmpfs that every Linux with glibc has.
MEMORY = Path("/dev/shm")


@contextmanager
def data_directory(where: Literal["memory", "disk"]) -> Iterator[str]:
    """Create an empty directory, and remove it with its contents afterwards.

    Raises:
        MeasurementError: there is no tmpfs.
    """
    parent = MEMORY if where == "memory" else OUTPUT
    if where == "memory" and not parent.is_dir():
        raise MeasurementError(f"there is no {parent}, the tmpfs needed for this measurement")
    # Short, because Dovecot has sockets below it, whose paths have at most 107 octets.
    with tempfile.TemporaryDirectory(prefix="b-", dir=parent) as directory:
        yield directory


def count_files(directory: str) -> int:
    """Return how many messages are below a directory: files, but those in `RUN`."""
    count = 0
    for path, directories, files in os.walk(directory):
        if path == directory and RUN in directories:
            directories.remove(RUN)
        count += len(files)
    return count


def await_files(directory: str, wanted: int) -> int:
    """Wait until a directory has this many messages, or no more arrive; return their number.

    Postfix answers when a message is in its queue, and delivers it afterwards.
    """
    found, changed = count_files(directory), time.monotonic()
    while found < wanted and time.monotonic() - changed < STALLED:
        time.sleep(0.05)
        now = count_files(directory)
        if now != found:
            found, changed = now, time.monotonic()
    return found
