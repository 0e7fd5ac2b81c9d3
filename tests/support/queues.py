"""Accept queues of listening sockets, as the kernel sees them (/proc/net/tcp).

Rules of this file: IPv4 only. A queue is known by the inode of its socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from pathlib import Path

from support.kernel import sockets

__all__ = ["backlog_of", "backlogs", "queues", "queues_of"]

#: The system call (linux/unistd.h), for which there is no function.
_PIDFD_GETFD = 438

#: TCP_LISTEN, as /proc/net/tcp writes it.
_LISTEN = "0A"


def queues(port: int) -> dict[int, int]:
    """Return how many clients wait in each queue of a port, by the inode of its socket."""
    found = {}
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            # Of a listening socket the size of the receive queue is that of the accept queue.
            found[int(fields[9])] = int(fields[4].rpartition(":")[2], 16)
    return found


def queues_of(pid: int, port: int) -> list[int]:
    """Return the inodes of those sockets of a port, listening, that a process has."""
    inodes = {int(name[8:-1]) for name in sockets(pid)}
    return [inode for inode in queues(port) if inode in inodes]


def backlog_of(listening: socket.socket) -> int:
    """Return the limit of a queue, which is in tcpi_sacked of a listening socket (tcp_diag)."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    limit: int = struct.unpack_from("=I", info, 28)[0]
    return limit


def backlogs(pid: int, port: int) -> list[int]:
    """Return the limits of the queues of a port that a process has open.

    Only the socket itself can be asked, so a duplicate of each is made.
    """
    wanted = [f"socket:[{inode}]" for inode in queues_of(pid, port)]
    found = []
    libc = ctypes.CDLL(None)
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{name}") not in wanted:
                    continue
                fd = libc.syscall(_PIDFD_GETFD, process, int(name), 0)
                assert fd >= 0
                with socket.socket(fileno=fd) as sock:
                    found.append(backlog_of(sock))
    finally:
        os.close(process)
    return found
