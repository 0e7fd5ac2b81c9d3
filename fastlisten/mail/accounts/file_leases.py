"""Leases: whether anybody has a file open for writing, and who would like to.

Rules of this file: fcntl(2), "Leases". The kernel gives a read lease on a file only as long as
nobody has it open for writing; whoever opens it so while the lease is held waits until it is given
back (at most /proc/sys/fs/lease-break-time, 45 s), and its holder can see that. Only the file's
owner (or CAP_LEASE) gets one, and only on filesystems of this host.
"""

from __future__ import annotations

import errno
import fcntl
import signal

__all__ = ["give_back", "take", "wanted"]


def take(fd: int) -> bool | None:
    """Take a read lease.

    Args:
        fd: a file that is open for reading alone; the lease ends when it is closed.

    Returns:
        Whether nobody has the file open for writing; None if no lease can be had here.
    """
    try:
        # The usual signal, SIGIO, would end the process; SIGURG is ignored unless a program has
        # asked for it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def wanted(fd: int) -> bool:
    """Whether somebody waits to open a leased file for writing."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK


def give_back(fd: int) -> None:
    """Give a lease back; whoever waits goes on."""
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
