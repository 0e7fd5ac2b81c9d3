"""The store of Maildirs behind the interface of interface.py.

Rules of this file: which folders are in memory, and by which names; what is asked of threads.
Nothing about SQL or files.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Concatenate, ParamSpec, TypeVar

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.store import copying, folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.autoexpunge import claim, expire
from fastlisten.mail.store.bounds import Bounds
from fastlisten.mail.store.folders import INBOX, FolderRow
from fastlisten.mail.store.index import LARGEST_SLICE, Index
from fastlisten.mail.store.index_use import IndexUse
from fastlisten.mail.store.interface import (
    FolderNotFoundError,
    Listed,
    QuotaStatus,
    Status,
    Usage,
)
from fastlisten.mail.store.maildir_folder import MaildirFolder
from fastlisten.mail.store.maildir_streams import MaildirAppend
from fastlisten.mail.store.resources import Resources
from fastlisten.mail.store.shared_folder import Owner, SharedFolder
from fastlisten.mail.store.usage import catch_up, deleted_size, sums

__all__ = ["MaildirAccount"]

logger = logging.getLogger("fastlisten.mail")

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Names of folders that are known; clients give a folder two at most.
_MOST_NAMES = 256


class MaildirAccount(Owner):
    """One account's Maildir; implements `interface.Account`.

    Args:
        root: its directory, which is made if it is missing.
        resources: what accounts share, or just the threads that wait for disk and locks.
        quota: returns how much mail it may have; called in any thread.
        special: names of folders that a new account gets, by their special use.
    """

    __slots__ = ("_folders", "_names", "_use")

    def __init__(
        self,
        root: str,
        resources: Resources | Executor,
        quota: Callable[[], Quota] = lambda: NO_QUOTA,
        special: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(resources, Executor):
            resources = Resources(resources)
        self._use = IndexUse(root, resources, self)
        self._use.quota = quota
        self._use.special = special
        self._folders: tuple[SharedFolder, ...] = ()  # few, and mostly one
        # By what clients have called them, with the directories that they had then.
        self._names: dict[str, tuple[SharedFolder, str]] = {}

    async def close(self) -> None:
        """Give back everything, when no folder is in use and nothing is going on."""
        for folder in self._folders:
            folder.drop()
        self._use.unwatch()
        await self._use.close_index()

    async def run(
        self,
        work: Callable[Concatenate[Index, _P], _T],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> _T:
        """Run something with the account's index in a thread.

        Raises:
            StoreError: it could not be done.
        """
        return await self._use.use(work, *arguments, **options)

    async def autoexpunge(self, ages: Mapping[str, float], wanted: Callable[[], bool]) -> None:
        """Remove what has been in folders for long, unless that has been done today.

        Args:
            ages: in seconds, by the folder's role.
            wanted: returns whether to go on; asked after each slice.
        """
        if not await self._use.use(claim):
            return
        for role, age in ages.items():
            while wanted() and (gone := await self._use.use(expire, role, age)):
                logger.info("%s: autoexpunge of %s: %d messages", self._use.root, role, gone)
                self._use.changed()

    # --- folders ------------------------------------------------------------------------------

    async def folders(self) -> Sequence[Listed]:
        """Return all folders and subscribed names, sorted by name."""
        return await self._use.use(folders.folders)

    async def create(self, name: str, role: str = "") -> None:
        """Make a folder and subscribe to it."""
        await self._use.use(folders.create, name, role)

    async def delete(self, name: str) -> None:
        """Delete a folder with its messages."""
        await self._use.use(folders.delete, name)
        self._use.changed()

    async def rename(self, old: str, new: str) -> None:
        """Rename a folder and those below it; of INBOX, the messages move to a new folder."""
        if old.upper() == INBOX:
            await self._use.use(_move_inbox, new)
        else:
            await self._use.use(folders.rename, old, new)
        self._use.changed()

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """Add a name to the subscribed ones, or take it away."""
        await self._use.use(folders.subscribe, name, subscribed)

    async def status(self, name: str) -> Status:
        """Look at a folder without opening it."""
        folder = self._known(name)
        if folder is not None:
            with contextlib.suppress(FolderNotFoundError):
                status = await folder.refresh_status()
                if self._known(name) is folder:
                    return status
        folder = await self._found(name)
        return await folder.refresh_status()

    async def deleted_size(self, name: str) -> int:
        r"""Return how many octets the messages of a folder have that are ``\Deleted``."""
        return await self._use.use(_deleted_size, name)

    async def quota(self) -> QuotaStatus:
        """Return how much mail there is, and how much there may be."""
        return QuotaStatus(await self._use.use(_usage), *self._use.quota())

    def set_bounds(self, bounds: Bounds) -> None:
        """Set how many folders and keywords there may be."""
        self._use.bounds = bounds

    def set_quota(self, quota: Callable[[], Quota]) -> None:
        """Ask someone else from now on how much mail it may have."""
        self._use.quota = quota

    async def open(self, name: str, *, read_only: bool = False) -> MaildirFolder:
        """Open a folder."""
        folder = self._known(name)
        if folder is not None:
            with contextlib.suppress(FolderNotFoundError):
                await folder.enter(read_only=read_only)
                if self._known(name) is folder:
                    return MaildirFolder(self._use, folder, read_only=read_only)
                folder.leave(read_only=read_only)
        folder = await self._found(name)
        await folder.enter(read_only=read_only)
        return MaildirFolder(self._use, folder, read_only=read_only)

    def _known(self, name: str) -> SharedFolder | None:
        """Return the folder that had this name at the last look, and may have it still."""
        folder, directory = self._names.get(name, (None, ""))
        if folder is not None and (folder.dropped or folder.row.directory != directory):
            del self._names[name]
            return None
        return folder

    async def _found(self, name: str) -> SharedFolder:
        """Return a folder by its name.

        Raises:
            FolderNotFoundError: there is none.
        """
        row = await self._use.use(_found, name)
        there = (one for one in self._folders if one.row.id == row.id)
        folder = next(there, None)
        if folder is None:
            folder = SharedFolder(self, self._use, row)
            self._folders = (*self._folders, folder)
        folder.row = row
        while len(self._names) >= _MOST_NAMES:
            self._names.pop(next(iter(self._names)))
        self._names[name] = folder, row.directory
        return folder

    def forget(self, folder: SharedFolder) -> None:
        """Forget a folder that has been dropped (`Owner`)."""
        self._folders = tuple(one for one in self._folders if one is not folder)
        for name in [name for name, (one, _) in self._names.items() if one is folder]:
            del self._names[name]

    async def append(self, name: str) -> MaildirAppend:
        """Begin to append messages to a folder."""
        append = MaildirAppend(self._use, lambda index: _appending(index, name))
        if self._known(name) is None:  # else it is most likely there, and looked for later
            await append.prepare()
        return append

    # --- notices ------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Look whether something has happened without a notice, for those who wait for it."""
        for folder in self._folders:
            folder.sweep()

    def wake(self) -> None:
        """Look whether the index has changed (`index_use.Woken`)."""
        for folder in self._folders:
            folder.wake()


# --- in threads -----------------------------------------------------------------------------------


def _found(index: Index, name: str) -> FolderRow:
    row = folders.find(index, name)
    path = f"{index.maildir.path}/{row.directory}"
    for directory in (f"{path}/new", f"{path}/cur"):
        os.path.isdir(directory)  # so that it is in the kernel's cache when it is to be watched
    return row


def _deleted_size(index: Index, name: str) -> int:
    row = folders.find(index, name)
    look(index, row.id)
    return deleted_size(index, row.id)


def _usage(index: Index) -> Usage:
    catch_up(index)
    return sums(index)


def _appending(index: Index, name: str) -> Appending:
    return Appending(index, folders.find(index, name).id)


def _move_inbox(index: Index, new: str) -> None:
    target = folders.create(index, new)
    inbox = folders.find(index, folders.INBOX)
    look(index, inbox.id, thorough=True)
    while uids := index.query(
        "SELECT uid FROM message WHERE folder = ? ORDER BY uid LIMIT ?", (inbox.id, LARGEST_SLICE)
    ):
        if not copying.move(index, inbox.id, [uid for (uid,) in uids], target.id).sources:
            return  # what is left has been removed by others
