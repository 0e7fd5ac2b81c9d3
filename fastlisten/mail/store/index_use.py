"""The index of an account as coroutines use it: opened when it is needed, in threads.

Rules of this file: on the loop. The index is open while something is done with it, and for a while
after that (resources.py). Errors of the system become `StoreError`s here.

`number` grows with everything that is committed to the index, whoever does it: its writers set the
times of index.lock (index.py), which is watched. It is exact only as long as `watched`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.store import folders, special_folders
from fastlisten.mail.store.bounds import NO_BOUNDS
from fastlisten.mail.store.changes import prune
from fastlisten.mail.store.index import FULL, Index
from fastlisten.mail.store.interface import StoreFullError, StoreUnavailableError
from fastlisten.mail.store.notices import ENDED, FILE, MOVED
from fastlisten.mail.store.pending import finish
from fastlisten.mail.store.resources import Resources

__all__ = ["IndexUse", "Woken"]

logger = logging.getLogger("fastlisten.mail")

_P = ParamSpec("_P")
_T = TypeVar("_T")


#: No descriptor is left: to the process, to the machine.
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


class Woken(Protocol):
    """Who is told of changes; a method of it would be one more object for each account."""

    def wake(self) -> None:
        """Take note that the index may have changed."""


class IndexUse:
    """An account's index.

    Args:
        root: the account's directory, which is made if it is missing.
        resources: what accounts share.
        news: is told when the index may have changed, or the watch has ended.

    Attributes:
        number: larger after every change.
        bounds: how many folders and keywords there may be.
        quota: returns how much mail there may be; called in any thread.
        resources: as given.
        root: as given.
        special: names of folders that a new account gets, by their special use.
    """

    __slots__ = (
        "_gate",
        "_index",
        "_known",
        "_news",
        "_uses",
        "_watch",
        "bounds",
        "number",
        "quota",
        "resources",
        "root",
        "special",
    )

    def __init__(self, root: str, resources: Resources, news: Woken) -> None:
        self.number = 1
        self.bounds = NO_BOUNDS
        self.quota: Callable[[], Quota] = lambda: NO_QUOTA
        self.special: Mapping[str, str] | None = None
        self.resources = resources
        self.root = root
        self._news = news
        self._index: Index | None = None
        self._gate: asyncio.Future[None] | None = None  # while it is being opened or closed
        self._known = False  # it has been opened before
        self._uses = 0
        self._watch = -1

    # --- threads and errors -------------------------------------------------------------------

    async def run(self, work: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T:
        """Run something that needs no index in a thread.

        Raises:
            StoreError: it could not be done.
        """
        return await self._in_thread(partial(work, *arguments, **options))

    async def use(
        self,
        work: Callable[Concatenate[Index, _P], _T],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> _T:
        """Run something with the index in a thread.

        Raises:
            StoreError: it could not be done.
        """
        async with self.resources.turns:
            self.pin()
            try:
                index = self._index
                if index is None:
                    index = await self._opened()
                return await self._in_thread(partial(work, index, *arguments, **options))
            finally:
                self.unpin()

    def pin(self) -> None:
        """Keep the index open, once it is, until `unpin`."""
        self._uses += 1
        if self._uses == 1:
            self.resources.in_use(self)

    def unpin(self) -> None:
        """End what `pin` has begun."""
        self._uses -= 1
        if not self._uses and self._index is not None:
            self.resources.not_in_use(self)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.resources.pool, work)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS or self.resources.lacks_descriptors():
                logger.warning("%s: %s", self.root, error)
            if error.errno in FULL:
                raise StoreFullError("No space left") from error
            raise StoreUnavailableError("Mailbox cannot be accessed now") from error
        except sqlite3.Error as error:
            logger.error("%s: index: %s", self.root, error)
            if self._index is not None and self._index.suspect:
                await self._mend(self._index)
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE or (
                isinstance(error, sqlite3.OperationalError) and "full" in str(error)
            ):
                raise StoreFullError("No space left") from error
            raise StoreUnavailableError("Mailbox cannot be accessed now") from error

    async def _mend(self, index: Index) -> None:
        """Have damage of the index looked into, so that the next command finds a whole one."""

        def work() -> None:
            with contextlib.suppress(OSError, sqlite3.Error), index.locked():
                pass

        await asyncio.get_running_loop().run_in_executor(self.resources.pool, work)

    # --- opening and closing ------------------------------------------------------------------

    async def _through_gate(self) -> None:
        """Wait until nobody opens or closes the index."""
        while self._gate is not None:
            await asyncio.wait([self._gate])

    async def _opened(self) -> Index:
        await self._through_gate()
        if self._index is None:
            self._gate = gate = asyncio.get_running_loop().create_future()
            try:
                await self.resources.opening()
                try:
                    self._index = await self._in_thread(self._open)
                except BaseException:
                    self.resources.closed(self)
                    raise
            finally:
                self._gate = None
                gate.set_result(None)
            self._known = not self._index.read_only
            self.watch()
        return self._index

    def _open(self) -> Index:
        index = Index(self.root, finish)
        index.quota = lambda: self.quota()
        index.bounds = lambda: self.bounds
        if not self._known and not index.read_only:
            try:
                folders.discover(index)
                special_folders.prepare(index, self.special or {})
                folders.empty_trash(index)
                prune(index)
            except BaseException:
                index.close()
                raise
        return index

    async def close_index(self) -> None:
        """Close the index, if it is open and nothing is done with it; it opens again when needed.

        Raises:
            StoreError: something could not be written; it is closed all the same.
        """
        await self._through_gate()
        index = self._index
        if index is None or self._uses:
            return
        self._index = None
        self._gate = gate = asyncio.get_running_loop().create_future()
        self.resources.closed(self)
        try:
            await self._in_thread(index.close)
        finally:
            self._gate = None
            gate.set_result(None)

    # --- notices ------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether every change is noticed."""
        return self._watch >= 0

    def watch(self) -> None:
        """Watch the lock, whose file may have been replaced by one from a backup."""
        notices = self.resources.notices
        if notices is None:
            return
        watch = notices.add(f"{self.root}/index.lock", FILE, self)
        if watch != self._watch:
            notices.remove(self._watch, self)
            self._watch = watch
            self.number += 1  # by what happened before it was watched

    def unwatch(self) -> None:
        """Give back the watch."""
        if self.resources.notices is not None:
            self.resources.notices.remove(self._watch, self)
        self._watch = -1

    def changed(self) -> None:
        """Take note that this process has changed something, if that is not noticed anyway."""
        if not self.watched:
            self.number += 1
            self._news.wake()

    def noticed(self, watch: int, mask: int) -> None:
        """Take note of a change (`Noticed`)."""
        self.number += 1
        if mask & ENDED:
            self._watch = -1
        elif mask & MOVED:
            self.unwatch()
        self._news.wake()
