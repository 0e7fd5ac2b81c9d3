"""The kernel's queues of a connection: octets not acknowledged, octets not read.

Rules of this file: two ioctl calls; connection.py decides what they mean.
"""

from __future__ import annotations

import array
import fcntl
import termios
from typing import Any

__all__ = ["unacknowledged", "unread"]

# <linux/sockios.h>, which Python's `termios` names as ttys do (tcp(7), unix(7)).
_SIOCOUTQ = termios.TIOCOUTQ
_SIOCINQ = termios.FIONREAD


def unacknowledged(socket: Any) -> int:
    """Return how many octets the peer's host has not acknowledged; 0 if the socket is closed.

    Over a Unix socket, how many the peer has not read.
    """
    return _queued(socket, _SIOCOUTQ)


def unread(socket: Any) -> int:
    """Return how many octets have been received and not read; 0 if the socket is closed."""
    return _queued(socket, _SIOCINQ)


def _queued(socket: Any, which: int) -> int:
    found = array.array("i", [0])
    try:
        fcntl.ioctl(socket.fileno(), which, found)
    except (OSError, ValueError, AttributeError):
        return 0
    return found[0]
