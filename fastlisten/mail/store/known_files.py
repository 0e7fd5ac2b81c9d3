"""The files of messages that have been asked about lately, and opening them without waiting.

Rules of this file: memory, and system calls that do not wait for a disk, so that it is used on the
loop. What is known may be old, because other processes rename files: whoever opens a file compares
it with what is known of it, and asks the index if anything is different (reading.py).

A thread costs 40 to 70 µs, opening and reading a file 2.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from fastlisten.mail.store.files import Inspected, mtime_of
from fastlisten.mail.store.interface import Facts

__all__ = ["MOST", "Key", "KnownFile", "KnownFiles", "open_known"]

#: How many messages are known at most, of all accounts of a loop: some 3 MB.
MOST = 4096

#: A structure with more octets is not kept.
_LONGEST_STRUCTURE = 1024

#: Account, folder, UIDVALIDITY and UID.
Key = tuple[str, int, int, int]

_AT_FDCWD = -100
_SYS_OPENAT2 = 437
_RESOLVE_CACHED = 0x20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# struct open_how: flags, mode, resolve (openat2(2), Linux 5.12)
_HOW = (ctypes.c_uint64 * 3)(_FLAGS, 0, _RESOLVE_CACHED)
# Without giving up the GIL: it does not wait.
_syscall = ctypes.PyDLL(None).syscall
_syscall.argtypes = (
    *(ctypes.c_long, ctypes.c_int, ctypes.c_char_p),
    *(ctypes.c_void_p, ctypes.c_size_t),
)
_syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A message.

    Attributes:
        path: of its file.
        inspected: what the file was like.
        facts: what is true of the message as long as that is so.
    """

    path: str
    inspected: Inspected
    facts: Facts


class KnownFiles:
    """Messages that have been asked about lately; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: dict[Key, KnownFile] = {}

    def get(self, key: Key) -> KnownFile | None:
        """Return what is known of a message."""
        return self._known.get(key)

    def put(self, key: Key, known: KnownFile) -> None:
        """Remember a message."""
        structure = known.facts.structure
        if structure is not None and len(structure) > _LONGEST_STRUCTURE:
            self._known.pop(key, None)
            return
        if len(self._known) >= MOST and key not in self._known:
            del self._known[next(iter(self._known))]
        self._known[key] = known

    def forget(self, key: Key) -> None:
        """Forget a message."""
        self._known.pop(key, None)


def open_known(known: KnownFile) -> int:
    """Return a descriptor of a file, -1 if it is another one now, or if it would take waiting."""
    fd: int = _syscall(
        _SYS_OPENAT2,
        _AT_FDCWD,
        os.fsencode(known.path),
        ctypes.addressof(_HOW),
        ctypes.sizeof(_HOW),
    )
    if fd < 0:
        return -1
    status, it = os.fstat(fd), known.inspected
    if (status.st_size, mtime_of(status), status.st_ino) != (it.octets, it.mtime, it.inode):
        os.close(fd)
        return -1
    return fd
