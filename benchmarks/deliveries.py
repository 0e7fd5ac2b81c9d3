"""Where servers that deliver are allowed to, and whether the messages are there.

Rules of this file: a directory per sample, gone afterwards. "memory" is a tmpfs, where a sync
costs nothing; "disk" is the filesystem of this source tree, as a data directory would have it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.build import OUTPUT
from benchmarks.process import MeasurementError

__all__ = ["count_files", "data_directory"]

#: The tmpfs that every Linux with glibc has.
MEMORY = Path("/dev/shm")


@contextmanager
def data_directory(where: Literal["memory", "disk"]) -> Iterator[str]:
    """Give an empty directory, and remove it with all that is in it.

    Raises:
        MeasurementError: there is no tmpfs.
    """
    parent = MEMORY if where == "memory" else OUTPUT
    if where == "memory" and not parent.is_dir():
        raise MeasurementError(f"no {parent}, the tmpfs that this is measured on")
    with tempfile.TemporaryDirectory(prefix="fastlisten-benchmarks-", dir=parent) as directory:
        yield directory


def count_files(directory: str) -> int:
    """Return how many files are below a directory."""
    return sum(len(files) for _, _, files in os.walk(directory))
