"""The accept queues of single workers (`socket.reuse-port`), opened and closed while a server runs.

The kernel spreads new clients over the sockets of an address that listen. One that nobody will
accept on must not listen, or its share of the clients would wait for ever.

Rules of this file: the sockets stay bound, so the port cannot be lost, and no privilege is needed.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from fastlisten.runtime.sockets.bound_socket import BoundSocket

__all__ = ["close_queues", "open_queues"]


def close_queues(sockets: Iterable[BoundSocket], worker: int) -> None:
    """Let the sockets of a worker no longer listen, in no process; clients in the queue are reset.

    Args:
        sockets: of all workers.
        worker: its number.
    """
    for bound in sockets:
        if bound.worker == worker:
            with contextlib.suppress(OSError):  # it does not listen
                bound.sock.shutdown(socket.SHUT_RD)


def open_queues(sockets: Iterable[BoundSocket], worker: int) -> None:
    """Let those sockets of a worker listen that do not.

    Args:
        sockets: of all workers.
        worker: its number.

    Raises:
        OSError: some cannot listen; the others do.
    """
    failure: OSError | None = None
    for bound in sockets:
        if bound.worker != worker:
            continue
        try:
            if not bound.listens:
                bound.sock.listen(bound.backlog)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure
