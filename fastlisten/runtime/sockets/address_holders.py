"""Finds the process that holds an address that is in use, for the message about EADDRINUSE.

Rules of this file: it reads /proc, after a failure only, and leaves out what cannot be read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

from fastlisten.addresses import MAPPED_PREFIX

__all__ = ["describe_holder"]

#: proc_pid_net(5): the state of a listening TCP socket.
_LISTENING = "0A"


def describe_holder(name: object) -> str:
    """Return `` (held by PID 12, smtpd)`` for an address that is in use, or an empty text.

    Args:
        name: the address as passed to bind(2): a tuple with the port second, or a path.
    """
    inodes = _unix_inodes(name) if isinstance(name, str) else _tcp_inodes(name)
    holders = sorted(set(_processes(inodes))) if inodes else []
    return f" (held by {', '.join(holders)})" if holders else ""


def _lines(path: str) -> Iterator[list[str]]:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        next(file, None)
        for line in file:
            yield line.split()


def _tcp_inodes(name: object) -> set[str]:
    if not isinstance(name, tuple) or not name[1]:
        return set()
    suffix = f":{name[1]:04X}"
    host = name[0].partition("%")[0]
    wanted = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return {
        fields[9]
        for path in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in _lines(path)
        if len(fields) > 9
        and fields[1].endswith(suffix)
        and fields[3] == _LISTENING
        and _overlap(wanted, _address(fields[1].removesuffix(suffix)))
    }


def _address(text: str) -> bytes:
    """Return the 4 or 16 bytes of an address, which /proc prints as words in native byte order."""
    packed = bytes.fromhex(text)
    if sys.byteorder == "little":
        packed = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
    return packed.removeprefix(MAPPED_PREFIX)


def _overlap(one: bytes, other: bytes) -> bool:
    """Tell whether two addresses are the same or one is a wildcard that covers the other."""
    if len(one) == len(other):
        return one == other or not any(one) or not any(other)
    return not any(one if len(one) == 16 else other)


def _unix_inodes(path: str) -> set[str]:
    return {
        fields[6] for fields in _lines("/proc/net/unix") if len(fields) > 7 and fields[7] == path
    }


def _processes(inodes: set[str]) -> Iterator[str]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in wanted:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                            yield f"PID {pid}, {comm.read().strip()}"
                        break
