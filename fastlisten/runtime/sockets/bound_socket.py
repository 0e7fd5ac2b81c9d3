"""A bound socket of a listener: what it is bound to, and how it is closed.

Rules of this file: it opens nothing.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from fastlisten._core import OptionBatch
from fastlisten.config import Bind
from fastlisten.runtime.sockets.unix_files import remove_file

__all__ = ["BoundSocket", "close_all"]


@dataclass(slots=True)
class BoundSocket:
    """One bound socket of a listener.

    Attributes:
        listener: id of the listener.
        bind: the bind in the configuration.
        sock: the socket, non-blocking.
        backlog: for listen(2).
        accepted: options that accepted sockets don't inherit, to set on each; usually empty.
        unlink: the file of a Unix socket created here, to remove at the end: path, device, inode.
        worker: the number of the worker whose accept queue it is (`socket.reuse-port`); None: all
            workers accept on it.
    """

    listener: str
    bind: Bind
    sock: socket.socket
    backlog: int
    accepted: OptionBatch
    unlink: tuple[str, int, int] | None = None
    worker: int | None = None

    @property
    def address(self) -> str:
        """The bound address, ``[::]:25``, with the port that the kernel chose."""
        return format_address(self.sock)

    @property
    def port(self) -> int:
        """The bound port, 0 for a Unix socket."""
        name = self.sock.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def listens(self) -> bool:
        """Whether clients can connect."""
        return bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def is_for(self, worker: int) -> bool:
        """Tell whether a worker accepts on it."""
        return self.worker is None or self.worker == worker

    def duplicate(self) -> BoundSocket:
        """Return a duplicate (dup(2)) for another worker. It never removes a Unix socket's file."""
        return dataclasses.replace(self, sock=self.sock.dup(), unlink=None)

    def close(self) -> None:
        """Close the socket, and remove its file if it is still the one created here."""
        self.sock.close()
        if self.unlink is not None:
            made, self.unlink = self.unlink, None
            remove_file(made)


def format_address(sock: socket.socket) -> str:
    """Return the socket's own address as it would be written in a configuration."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        if sock.family == socket.AF_INET6:
            scope = f"%{socket.if_indextoname(name[3])}" if name[3] else ""
            return f"[{name[0].partition('%')[0]}{scope}]:{name[1]}"
        return f"{name[0]}:{name[1]}"
    return f"unix:{os.fsdecode(name)}"


def close_all(sockets: Iterable[BoundSocket]) -> None:
    """Close sockets and remove the files of Unix sockets created here."""
    for bound in sockets:
        bound.close()
