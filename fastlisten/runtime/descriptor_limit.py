"""The process's limit of open files, and whether it is high enough for the configuration.

Rules of this file: it raises the soft limit to the hard limit, and never changes the hard limit.
"""

from __future__ import annotations

import os
import resource

from fastlisten.config import Config

__all__ = ["raise_descriptor_limit"]

#: Descriptors that a process needs besides connections and listening sockets: files, pipes, what
#: handlers open to deliver mail.
_KEPT_FOR_HANDLERS = 256

#: Descriptors of a worker for each worker: for waking it and those that replace it.
_PER_WORKER = 3


def raise_descriptor_limit(config: Config) -> str:
    """Raise the soft limit of open files to the hard limit.

    Returns:
        A warning if explicitly configured limits cannot be reached, else an empty text.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return ""
    binds = sum(len(settings.bind) for settings in config.listeners)
    written = sum(
        settings["max-connections"]
        for settings in config.listeners
        if settings.origin("max-connections") != "default"
    )
    # Not all of them at a time if there is a total.
    written = min(written, config.process["server.total-connections"] or written)
    kept = binds + _KEPT_FOR_HANDLERS + _open_files()
    workers = config.workers
    if workers > 1:
        kept += _PER_WORKER * workers
    room = workers * max(1, hard - kept)
    if written <= room:
        return ""
    who = (
        f"this process may open {hard} files (RLIMIT_NOFILE) and keeps"
        if workers == 1
        else f"each of {workers} workers may open {hard} files (RLIMIT_NOFILE) and keeps"
    )
    return (
        f"max-connections add up to {written}, but {who} {kept} of them: accepting stops at "
        f"{room} connections"
    )


def _open_files() -> int:
    """Return how many files are open; call it at the start, when descriptors are low numbers."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc, as in some containers
        return sum(map(_is_open, range(_KEPT_FOR_HANDLERS)))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
