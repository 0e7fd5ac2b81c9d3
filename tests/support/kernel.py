"""The open descriptors of this process."""

from __future__ import annotations

import os

__all__ = ["open_descriptors"]


def open_descriptors() -> dict[int, str]:
    """Return the open descriptors of this process and what each refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the directory that was being listed
    return found
