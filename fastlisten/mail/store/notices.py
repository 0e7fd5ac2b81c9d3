"""What happens to files, from the kernel (inotify(7)): one descriptor for all accounts of a loop.

Rules of this file: system calls that do not wait, on the loop; nothing of accounts or folders. The
kernel queues an event within the call that changes a file. So whoever reads the descriptor after
another process has said that something is done, knows of it. To ask whether there is anything takes
0.5 µs (a cell in shared memory 0.04, but other programs do not write to that).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import logging
import os
import struct
import termios
from typing import Final, Protocol

__all__ = ["ENDED", "FILE", "FOLDER", "MOVED", "MOVED_FROM", "MOVED_TO", "Noticed", "Notices"]

logger = logging.getLogger("fastlisten.mail")

# From linux/inotify.h.
_IN_ATTRIB: Final = 0x4
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_DELETE_SELF: Final = 0x400
_IN_MOVE_SELF: Final = 0x800
_IN_IGNORED: Final = 0x8000
_IN_ONLYDIR: Final = 0x1000000

#: A directory has lost a file, or got one, by a rename.
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80

#: To be told when a file's times are set.
FILE: Final = _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF

#: To be told when a directory gets, loses or renames a file.
FOLDER: Final = (
    _IN_CREATE | MOVED_TO | MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
    | _IN_ONLYDIR
)  # fmt: skip

#: The file is not where it was any more.
MOVED: Final = _IN_DELETE_SELF | _IN_MOVE_SELF

#: The kernel has ended the watch, because the file is gone.
ENDED: Final = _IN_IGNORED

_EVENT: Final = struct.Struct("iIII")

#: Octets that are read at once: some 200 events of files in a Maildir.
_PIECE: Final = 16384

_NOTHING: Final = b"\0\0\0\0"

_libc = ctypes.CDLL(None, use_errno=True)


class Noticed(Protocol):
    """Who is told."""

    def noticed(self, watch: int, mask: int) -> None:
        """Take note that something has happened; `mask` is 0 if events have been lost."""


class Notices:
    """An inotify descriptor, which the running loop reads.

    Raises:
        OSError: there are too many (``fs.inotify.max_user_instances``).
    """

    __slots__ = ("_asked", "_fd", "_full", "_loop", "_overflowed", "_watches")

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("inotify_init1")
        self._asked = bytearray(4)
        self._full = False
        self._overflowed = False
        # Two names of a directory, by a symbolic link, have one watch.
        self._watches: dict[int, Noticed | tuple[Noticed, ...]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self.poll)

    def __len__(self) -> int:
        return len(self._watches)

    def close(self) -> None:
        """Close the descriptor, and end all watches."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._loop.remove_reader(fd)
            os.close(fd)
            self._watches.clear()

    def add(self, path: str, mask: int, who: Noticed) -> int:
        """Watch a file or directory, whose name should be in the kernel's cache.

        Returns:
            The watch, for `remove`; -1 if there can be none: the file is missing, or there are too
            many watches. One that `who` has already is returned again, if it is the same file.
        """
        if self._fd < 0:
            return -1
        watch: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if watch < 0:
            if ctypes.get_errno() == errno.ENOSPC and not self._full:
                self._full = True
                logger.warning(
                    "%s: cannot be watched: fs.inotify.max_user_watches is used up;"
                    " changes are looked for every 30 s",
                    path,
                )
            return -1
        there = self._watchers(watch)
        if who not in there:
            self._watches[watch] = (*there, who) if there else who
        return watch

    def _watchers(self, watch: int) -> tuple[Noticed, ...]:
        there = self._watches.get(watch, ())
        return there if isinstance(there, tuple) else (there,)

    def remove(self, watch: int, who: Noticed) -> None:
        """End a watch; one that has ended already is ignored."""
        there = self._watchers(watch)
        if who not in there:
            return
        rest = tuple(one for one in there if one is not who)
        if rest:
            self._watches[watch] = rest
        else:
            del self._watches[watch]
            _libc.inotify_rm_watch(self._fd, watch)

    def poll(self) -> None:
        """Tell of everything that has happened until now."""
        fd, asked = self._fd, self._asked
        while fd >= 0:
            fcntl.ioctl(fd, termios.FIONREAD, asked)
            if asked == _NOTHING:
                return
            self._tell(os.read(fd, _PIECE))

    def _tell(self, data: bytes) -> None:
        place, end, watches = 0, len(data), self._watches
        unpack, head = _EVENT.unpack_from, _EVENT.size
        while place < end:
            watch, mask, _, size = unpack(data, place)
            place += head + size
            one = watches.get(watch)
            if one is not None and not mask & ENDED and not isinstance(one, tuple):
                one.noticed(watch, mask)  # as nearly always; 50,000 moves are 100,000 events
                continue
            if watch < 0:  # the queue was full
                if not self._overflowed:
                    self._overflowed = True
                    logger.warning(
                        "notices of changes were lost: fs.inotify.max_queued_events is too small;"
                        " all folders in use are looked at"
                    )
                for number in list(watches):
                    for who in self._watchers(number):
                        who.noticed(number, 0)
                continue
            there = self._watchers(watch)
            if mask & ENDED:
                watches.pop(watch, None)
            for who in there:
                who.noticed(watch, mask)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
