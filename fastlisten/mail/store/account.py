"""The store of Maildirs behind the interface of interface.py.

Rules of this file: coroutines that run the blocking modules in a pool of threads, and turn their
errors into `StoreError`s. What sessions of one worker share about a folder (`FolderState`) changes
on the loop only. Nothing about SQL or files.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.store import copying, folders, reading, special_folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.changes import changes, loaded, prune
from fastlisten.mail.store.expunge import expunge as expunge_messages
from fastlisten.mail.store.flags import store as store_flags
from fastlisten.mail.store.folder_state import FolderState, Loaded
from fastlisten.mail.store.folders import FolderRow
from fastlisten.mail.store.index import LARGEST_SLICE, Index
from fastlisten.mail.store.interface import (
    NO_FLAGS,
    Appended,
    Changes,
    Columns,
    Copied,
    Facts,
    Flag,
    FolderNotFoundError,
    Listed,
    MessageState,
    QuotaStatus,
    Status,
    Stored,
    StoreFullError,
    StoreMode,
    StoreUnavailableError,
    Usage,
)
from fastlisten.mail.store.pending import finish
from fastlisten.mail.store.usage import catch_up, deleted_size, sums

__all__ = ["MaildirAccount"]

logger = logging.getLogger("fastlisten.mail")

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Seconds after which a folder in use is compared with its directory even if that does not seem to
#: have changed.
THOROUGH_AFTER = 30.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MaildirAccount:
    """One account's Maildir; implements `interface.Account`.

    Args:
        root: its directory, which is made if it is missing.
        pool: the threads that wait for disk and locks.
        quota: returns how much mail it may have; called in any thread.
        special: names of folders that a new account gets, by their special use.
    """

    def __init__(
        self,
        root: str,
        pool: Executor,
        quota: Callable[[], Quota] = lambda: NO_QUOTA,
        special: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root
        self._special = special or {}
        self._pool = pool
        self._quota = quota
        self._index: Index | None = None
        self._opening = asyncio.Lock()
        self._states: weakref.WeakValueDictionary[int, FolderState] = weakref.WeakValueDictionary()
        self._watchers: dict[object, Callable[[], None]] = {}
        self._notified = False

    async def close(self) -> None:
        """Close the index, when no folder is open and nothing is going on."""
        async with self._opening:
            index, self._index = self._index, None
            if index is not None:
                await self._in_thread(index.close)

    # --- threads and errors -------------------------------------------------------------------

    async def run(self, work: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T:
        """Run something in a thread.

        Raises:
            StoreError: it could not be done.
        """
        return await self._in_thread(partial(work, *arguments, **options))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            logger.warning("%s: %s", self._root, error)
            if error.errno in _FULL:
                raise StoreFullError("No space left") from error
            raise StoreUnavailableError("Mailbox cannot be accessed now") from error
        except sqlite3.Error as error:
            logger.error("%s: index: %s", self._root, error)
            if self._index is not None and self._index.suspect:
                await self._mend(self._index)
            if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                raise StoreFullError("No space left") from error
            raise StoreUnavailableError("Mailbox cannot be accessed now") from error

    async def _mend(self, index: Index) -> None:
        """Have damage of the index looked into, so that the next command finds a whole one."""

        def work() -> None:
            with contextlib.suppress(OSError, sqlite3.Error), index.locked():
                pass

        await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def index(self) -> Index:
        """Return the index, opened with the first call."""
        if self._index is None:
            async with self._opening:
                if self._index is None:
                    self._index = await self._in_thread(self._opened)
        return self._index

    def _opened(self) -> Index:
        index = Index(self._root, finish)
        index.quota = self._quota
        try:
            folders.discover(index)
            special_folders.prepare(index, self._special)
            folders.empty_trash(index)
            prune(index)
        except BaseException:
            index.close()
            raise
        return index

    # --- folders ------------------------------------------------------------------------------

    async def folders(self) -> Sequence[Listed]:
        """Return all folders and subscribed names, sorted by name."""
        return await self.run(folders.folders, await self.index())

    async def create(self, name: str, role: str = "") -> None:
        """Make a folder and subscribe to it."""
        await self.run(folders.create, await self.index(), name, role)
        self.notify()

    async def delete(self, name: str) -> None:
        """Delete a folder with its messages."""
        await self.run(folders.delete, await self.index(), name)
        self.notify()

    async def rename(self, old: str, new: str) -> None:
        """Rename a folder and those below it; of INBOX, the messages move to a new folder."""
        index = await self.index()
        if old.upper() == folders.INBOX:
            await self.run(_move_inbox, index, new)
        else:
            await self.run(folders.rename, index, old, new)
        self.notify()

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """Add a name to the subscribed ones, or take it away."""
        await self.run(folders.subscribe, await self.index(), name, subscribed)

    async def status(self, name: str) -> Status:
        """Look at a folder without opening it."""
        return await self.run(_status, await self.index(), name)

    async def deleted_size(self, name: str) -> int:
        r"""Return how many octets the messages of a folder have that are ``\Deleted``."""
        return await self.run(_deleted_size, await self.index(), name)

    async def quota(self) -> QuotaStatus:
        """Return how much mail there is, and how much there may be."""
        used = await self.run(_usage, await self.index())
        return QuotaStatus(used, *self._quota())

    async def open(self, name: str, *, read_only: bool = False) -> MaildirFolder:
        """Open a folder."""
        index = await self.index()
        row = await self.run(folders.find, index, name)
        state = self._states.get(row.id)
        if state is None:
            state = self._states.setdefault(row.id, FolderState())
        await self.refresh(row, state, thorough=state.cursor == 0)
        first_recent = await self.run(_claim_recent, index, row.id, claim=not read_only)
        return MaildirFolder(self, index, row, state, first_recent, read_only=read_only)

    async def refresh(self, row: FolderRow, state: FolderState, *, thorough: bool = False) -> None:
        """Bring a folder's state up to date with its directories and the index.

        Raises:
            FolderNotFoundError: the folder has been deleted.
        """
        index = await self.index()
        now = time.monotonic()
        if thorough or now - state.compared > THOROUGH_AFTER:
            state.compared = now
            thorough = True
        while True:
            since = state.cursor
            found = await self.run(_refreshed, index, row.id, since, thorough=thorough)
            # Another session may have been faster; what is found counts from where the state is.
            if state.cursor == since:
                if isinstance(found, Loaded):
                    state.load(found)
                else:
                    state.apply(found)
                return
            if found.cursor <= state.cursor:
                return
            thorough = False

    async def append(self, name: str) -> MaildirAppend:
        """Begin to append messages to a folder."""
        index = await self.index()
        row = await self.run(folders.find, index, name)
        return MaildirAppend(self, await self.run(Appending, index, row.id))

    # --- notices ------------------------------------------------------------------------------

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after changes that were made through this object."""
        key = object()
        self._watchers[key] = callback
        return lambda: self._watchers.pop(key, None) and None

    def notify(self) -> None:
        """Have the watchers called, once for all changes of this turn of the loop."""
        if self._watchers and not self._notified:
            self._notified = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._notified = False
        for callback in list(self._watchers.values()):
            callback()


def _status(index: Index, name: str) -> Status:
    row = folders.find(index, name)
    look(index, row.id)
    return folders.status(index, row)


def _deleted_size(index: Index, name: str) -> int:
    row = folders.find(index, name)
    look(index, row.id)
    return deleted_size(index, row.id)


def _usage(index: Index) -> Usage:
    catch_up(index)
    return sums(index)


def _refreshed(index: Index, folder: int, since: int, *, thorough: bool) -> Changes | Loaded:
    look(index, folder, thorough=thorough)
    return changes(index, folder, since) if since else loaded(index, folder)


def _claim_recent(index: Index, folder: int, *, claim: bool) -> int:
    r"""Return the first UID that is ``\Recent``; nobody else is told of those, if it is claimed."""
    with index.locked(), index.transaction() as db:
        row = db.execute("SELECT recent, uidnext FROM folder WHERE id = ?", (folder,)).fetchone()
        if row is None:
            raise FolderNotFoundError("Mailbox has been deleted")
        first, uidnext = row
        if claim and first != uidnext:
            db.execute("UPDATE folder SET recent = uidnext WHERE id = ?", (folder,))
        return int(first)


def _move_inbox(index: Index, new: str) -> None:
    target = folders.create(index, new)
    inbox = folders.find(index, folders.INBOX)
    look(index, inbox.id, thorough=True)
    while uids := index.query(
        "SELECT uid FROM message WHERE folder = ? ORDER BY uid LIMIT ?", (inbox.id, LARGEST_SLICE)
    ):
        if not copying.move(index, inbox.id, [uid for (uid,) in uids], target.id).sources:
            return  # what is left has been removed by others


class MaildirAppend:
    """Messages on their way; implements `interface.Append`."""

    def __init__(self, account: MaildirAccount, appending: Appending) -> None:
        self._account = account
        self._appending = appending

    async def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        """Begin a message."""
        await self._account.run(self._appending.begin, flags, keywords, date)

    async def add(self, data: bytes) -> None:
        """Append octets to the message."""
        await self._account.run(self._appending.add, data)

    async def commit(self) -> Appended:
        """Make all of them durable and visible."""
        appended = await self._account.run(self._appending.commit)
        self._account.notify()
        return appended

    async def abort(self) -> None:
        """Drop all of them; after `commit`, do nothing."""
        await self._account.run(self._appending.abort)


class MaildirOctets:
    """The octets of a message; implements `interface.Octets`."""

    def __init__(self, account: MaildirAccount, message: reading.OpenMessage) -> None:
        self._account = account
        self._message = message

    @property
    def size(self) -> int:
        """How many there are."""
        return self._message.size

    async def read(self, offset: int, size: int) -> bytes:
        """Return octets; on the loop if they are in memory, because a thread costs 50 µs."""
        size = max(0, min(size, self.size - offset))
        if size and self._message.plain >= 0:
            buffer = bytearray(size)
            try:
                got = os.preadv(self._message.plain, [buffer], offset, os.RWF_NOWAIT)
            except OSError:
                got = 0  # not in memory, or a filesystem that cannot say
            if got == size:
                return bytes(buffer)
        return await self._account.run(self._message.read, offset, size)

    def close(self) -> None:
        """Close the file."""
        self._message.close()


class MaildirFolder:
    """An open folder; implements `interface.Folder`."""

    def __init__(
        self,
        account: MaildirAccount,
        index: Index,
        row: FolderRow,
        state: FolderState,
        first_recent: int,
        *,
        read_only: bool,
    ) -> None:
        self._account = account
        self._index = index
        self._row = row
        self._view = state.view()
        self.first_recent = first_recent
        self.read_only = read_only

    @property
    def name(self) -> str:
        """The name by which it was opened."""
        return self._row.name

    @property
    def uidvalidity(self) -> int:
        """Its UIDVALIDITY."""
        return self._row.uidvalidity

    @property
    def uidnext(self) -> int:
        """Larger than every UID so far."""
        return self._view.uidnext

    @property
    def highestmodseq(self) -> int:
        """The modification sequence of the last change."""
        return self._view.cursor

    @property
    def mailbox_id(self) -> str:
        """MAILBOXID."""
        return f"F{self._row.id}"

    def uids(self) -> Sequence[int]:
        """Return all UIDs."""
        return self._view.uids()

    def state(self, uid: int) -> MessageState:
        """Return what a message has."""
        return self._view.state.message(uid)

    def columns(self, places: range) -> Columns:
        """Return what many messages have."""
        return self._view.columns(places)

    def keywords(self) -> Sequence[str]:
        """Return all keywords in the folder, sorted."""
        return self._view.state.all_keywords()

    async def sync(self, *, expunge: bool = True) -> Changes:
        """Take over what has happened since, and return it."""
        await self._account.refresh(self._row, self._view.state)
        return self._view.advance(expunge=expunge)

    async def changes(self, since: int) -> Changes:
        """Return what happened after a modification sequence."""
        return await self._account.run(changes, self._index, self._row.id, since)

    async def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags and keywords."""
        stored = await self._account.run(
            store_flags, self._index, self._row.id, uids, mode, flags, keywords, unchanged_since
        )
        self._account.notify()
        return stored

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        r"""Remove messages that are ``\Deleted``."""
        gone = await self._account.run(expunge_messages, self._index, self._row.id, uids)
        self._account.notify()
        return gone

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        """Copy messages into a folder."""
        return await self._transfer(copying.copy, uids, target)

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        """Move messages into another folder."""
        return await self._transfer(copying.move, uids, target)

    async def _transfer(
        self,
        work: Callable[[Index, int, Sequence[int], int], Copied],
        uids: Sequence[int],
        target: str,
    ) -> Copied:
        there = await self._account.run(folders.find, self._index, target)
        copied = await self._account.run(work, self._index, self._row.id, uids, there.id)
        self._account.notify()
        return copied

    async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
        """Return what never changes about messages."""
        return await self._account.run(reading.facts, self._index, self._row.id, uids)

    async def keep_structure(self, uid: int, structure: bytes) -> None:
        """Keep a message's structure with it."""
        await self._account.run(reading.keep_structure, self._index, self._row.id, uid, structure)

    async def message(self, uid: int) -> MaildirOctets:
        """Return the octets of a message."""
        message = await self._account.run(reading.open_message, self._index, self._row.id, uid)
        return MaildirOctets(self._account, message)

    def close(self) -> None:
        """Give back what is held for it: nothing but memory."""
