"""Inherited descriptors, for binds such as ``fd:3``.

Rules of this file: the kernel tells what a descriptor is. One that cannot be used is left as it is.
"""

from __future__ import annotations

import errno
import os
import socket

__all__ = ["take_descriptor"]

_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


def take_descriptor(number: int) -> socket.socket:
    """Return the socket of a descriptor; it must be bound and may be listening.

    Args:
        number: the descriptor. The returned socket owns it, and child processes don't inherit it.

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
        # listen(2) would choose an arbitrary port.
        raise OSError(errno.EDESTADDRREQ, "not bound to an address")
