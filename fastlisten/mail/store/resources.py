"""What the accounts of one loop share: threads, the inotify descriptor, and what is kept open.

Rules of this file: who gives way when there is too much. An open index has three descriptors and
some 400 kB (statements, pages, the log's shared memory), and costs 0.7 ms to open and to close; a
folder has 13 octets a message. Both are kept, up to a limit, by those that have used them last. An
index that nobody uses is closed soon: most sessions only wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections import OrderedDict
from concurrent.futures import Executor
from typing import Protocol

from fastlisten.mail.store.known_files import KnownFiles
from fastlisten.mail.store.notices import Notices

__all__ = ["KEPT_FOLDERS", "KEPT_MESSAGES", "OPEN_INDEXES", "UNUSED_FOR", "Resources"]

#: Indexes that are open at once, apart from those of messages that clients are sending.
OPEN_INDEXES = 64

#: Seconds after which an index that is not used is closed: longer than clients need between two
#: commands, and rarely enough for the syncs that it costs.
UNUSED_FOR = 10.0

#: Folders that nobody has open and that stay in memory.
KEPT_FOLDERS = 256

#: Messages in them: 13 MB.
KEPT_MESSAGES = 1_000_000

# Of the C library, unless it has none: musl.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


#: Seconds for which is not logged again that there is no descriptor left: it is the same for all
#: accounts, with every notice and every command.
LACK_LOGGED_EVERY = 60.0


class _Closable(Protocol):
    async def close_index(self) -> None: ...


class _Droppable(Protocol):
    def __len__(self) -> int: ...

    def drop(self) -> None: ...


class Resources:
    """What accounts share.

    Args:
        pool: the threads that wait for disk and locks.
        notices: tells of changes; None: accounts have to look.

    Attributes:
        pool: as given.
        notices: as given.
        files: what is known of the files of messages.
        turns: one for each thing that is done with an index.
    """

    def __init__(self, pool: Executor, notices: Notices | None = None) -> None:
        self.pool = pool
        self.notices = notices
        self.files = KnownFiles()
        self._idle: OrderedDict[_Closable, float] = OrderedDict()  # open, since when not in use
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None  # while indexes are open
        self._stopped = False
        self._closing: asyncio.Task[None] | None = None
        # More would only wait for a thread, with an open index each.
        self.turns = asyncio.Semaphore(OPEN_INDEXES)
        self._folders: OrderedDict[_Droppable, int] = OrderedDict()  # with their messages
        self._messages = 0
        self._lacked_descriptors = -LACK_LOGGED_EVERY

    def lacks_descriptors(self) -> bool:
        """Take note that there is no descriptor left; return whether that should be logged."""
        now = time.monotonic()
        if now - self._lacked_descriptors < LACK_LOGGED_EVERY:
            return False
        self._lacked_descriptors = now
        return True

    # --- open indexes -------------------------------------------------------------------------

    async def opening(self) -> None:
        """Count one more open index; before, close those that have not been used for longest."""
        self._open += 1
        await self._make_room()

    async def _make_room(self) -> None:
        while self._open > OPEN_INDEXES and self._idle:
            with contextlib.suppress(Exception):  # which has been logged
                await next(iter(self._idle)).close_index()

    async def _trim(self) -> None:
        await self._make_room()
        self._closing = None

    def in_use(self, index: _Closable) -> None:
        """Take note that an index must not be closed."""
        self._idle.pop(index, None)

    def not_in_use(self, index: _Closable) -> None:
        """Take note that an index may be closed."""
        self._idle[index] = time.monotonic()
        if self._open > OPEN_INDEXES and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._trim())
        if self._timer is None and not self._stopped:
            self._wait()

    def closed(self, index: _Closable) -> None:
        """Count one less open index."""
        self._open -= 1
        self._idle.pop(index, None)
        if not self._open:
            self._end_wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(UNUSED_FOR, self._look)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Close what has not been used for long."""
        self._wait()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close_unused())

    async def _close_unused(self) -> None:
        late = time.monotonic() - UNUSED_FOR
        unused = [index for index, since in self._idle.items() if since <= late]
        for index in unused:
            if self._idle.get(index, late + 1.0) <= late:  # not used again meanwhile
                with contextlib.suppress(Exception):  # which has been logged
                    await index.close_index()
        if unused and not self._open and not self._stopped and _malloc_trim is not None:
            # What SQLite has freed would stay with the process: 25 MB of 64 indexes.
            with contextlib.suppress(RuntimeError):  # there can be no more threads
                await asyncio.get_running_loop().run_in_executor(self.pool, _malloc_trim, 0)
        self._closing = None

    def stop(self) -> None:
        """Close no more what is not used: everything is being closed."""
        self._stopped = True
        self._end_wait()

    async def settle(self) -> None:
        """Wait until nothing is being closed for lack of room, or of use."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    # --- folders that nobody has open ---------------------------------------------------------

    def keep(self, folder: _Droppable) -> None:
        """Keep a folder in memory until there are too many."""
        self.unkeep(folder)
        self._folders[folder] = size = len(folder)
        self._messages += size
        while len(self._folders) > KEPT_FOLDERS or self._messages > KEPT_MESSAGES:
            next(iter(self._folders)).drop()

    def unkeep(self, folder: _Droppable) -> None:
        """Take a folder back, if it is kept."""
        self._messages -= self._folders.pop(folder, 0)
