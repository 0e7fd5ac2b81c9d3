"""File leases: whether a program has a file open for writing, or is waiting to open it.

Rules of this file: fcntl(2), "Leases". The kernel grants a read lease on a file only if no program
has it open for writing. A program that opens it for writing while the lease is held has to wait
until the lease is given back (at most /proc/sys/fs/lease-break-time, 45 s), and its holder can see
that. Only the file's owner (or CAP_LEASE) can have one, and only on a local filesystem.
"""

from __future__ import annotations

import errno
import fcntl
import signal

__all__ = ["give_back", "take", "wanted"]


def take(fd: int) -> bool | None:
    """Take a read lease.

    Args:
        fd: a file that is open for reading only; the lease ends when it is closed.

    Returns:
        Whether no program has the file open for writing; None if leases are not available here.
    """
    try:
        # The default signal, SIGIO, would end the process; SIGURG is ignored unless it is handled.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def wanted(fd: int) -> bool:
    """Whether a program waits to open a leased file for writing."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK


def give_back(fd: int) -> None:
    """Give a lease back; programs that wait can go on."""
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
