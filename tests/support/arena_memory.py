"""The memory of an arena, as another process would read and write it.

Rules of this file: with it a test plays a member that stands still between two instructions, or
that does nothing at all. The layout is that of fastlisten/_arena.pxd, version 2.
"""

from __future__ import annotations

import contextlib
import os
import struct

from fastlisten._arena import Arena

__all__ = [
    "appear_to_accept",
    "ask_to_be_woken",
    "is_woken",
    "set_cell",
    "shares_sockets",
    "waiting",
]

#: The head, a member and a notice take a cache line each.
_LINE = 64
_NOTICES = 4096
#: Of a member's record: heartbeat, load, flags. The flag says that it has listening sockets.
_HEARTBEAT = 8
_ACCEPTING = 1
#: Of a row: the bits of the members that wait, and the cells.
_WAITERS = 32
_CELLS = 64
#: A time (ms) that does not come.
_NEVER = 1 << 62


def _row(arena: Arena, row: int) -> int:
    size: int = struct.unpack_from("5I", os.pread(arena.fd, 20, 0))[4]
    return _LINE * (1 + arena.members + _NOTICES) + row * size


def set_cell(arena: Arena, row: int, member: int, places: int) -> None:
    """Let a member hold so many places of a row."""
    os.pwrite(arena.fd, struct.pack("I", places), _row(arena, row) + _CELLS + 4 * member)


def waiting(arena: Arena, row: int = 0) -> set[int]:
    """Return the members that have asked to be woken for places of a row."""
    bits = int.from_bytes(os.pread(arena.fd, 32, _row(arena, row) + _WAITERS), "little")
    return {member for member in range(arena.members) if bits >> member & 1}


def ask_to_be_woken(arena: Arena, member: int, row: int = 0) -> None:
    """Let a member wait for a place of a row."""
    bits = sum(1 << one for one in {member, *waiting(arena, row)})
    os.pwrite(arena.fd, bits.to_bytes(32, "little"), _row(arena, row) + _WAITERS)


def appear_to_accept(arena: Arena, member: int, load: int) -> None:
    """Let a member be alive for good, have listening sockets and a load, and not be on duty."""
    record = struct.pack("QII", _NEVER, load, _ACCEPTING)
    os.pwrite(arena.fd, record, _LINE * (1 + member) + _HEARTBEAT)


def is_woken(arena: Arena, member: int) -> bool:
    """Return whether a member was woken since this was last asked."""
    try:
        os.eventfd_read(arena.wakeups[member])
    except BlockingIOError:
        return False
    return True


def shares_sockets(server: int, worker: int) -> bool:
    """Return whether a worker accepts on sockets on which others accept, too.

    Args:
        server: the process id of the supervisor.
        worker: that of the worker.
    """
    for name in os.listdir(f"/proc/{server}/fd"):
        path = f"/proc/{server}/fd/{name}"
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(path).startswith("/memfd:fastlisten-arena"):
                with open(path, "rb") as file:
                    head = file.read(_LINE * 257)
                for start in range(_LINE, len(head), _LINE):
                    if struct.unpack_from("I", head, start) == (worker,):
                        flags: int = struct.unpack_from("I", head, start + _HEARTBEAT + 12)[0]
                        return bool(flags & _ACCEPTING)
    raise AssertionError(f"{worker} is no member of an arena of {server}")
