"""Inherited descriptors: the kernel is asked what they are.

Rules of this file: a descriptor that cannot be used is left as it was found.
"""

from __future__ import annotations

import errno
import os
import socket

__all__ = ["take_descriptor"]

_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


def take_descriptor(number: int) -> socket.socket:
    """Return the socket behind a descriptor, which must be bound; it may listen already.

    Args:
        number: the descriptor; owned by the returned socket from now on, and not inherited on.

    Raises:
        OSError: it is closed, or not a socket that can be served.
    """
    sock = socket.socket(fileno=number)
    try:
        _check(sock)
    except BaseException:
        sock.detach()
        raise
    os.set_inheritable(number, False)
    return sock


def _check(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_STREAM or sock.family not in _FAMILIES:
        raise OSError(errno.EPROTOTYPE, "not a TCP or Unix stream socket")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    else:
        raise OSError(errno.EISCONN, "a connection, not a listening socket")
    name = sock.getsockname()
    if not (name[1] if isinstance(name, tuple) else name):
        # listen(2) would choose a port by itself, one that nobody asked for.
        raise OSError(errno.EDESTADDRREQ, "not bound to an address")
