"""The accounts that are open: one object for each, however many sessions read it.

Rules of this file: who shares what, and when it is closed. Sessions of one account share the
object, and what it knows. A `MaildirAccount` belongs to one loop, so there is one `OpenAccounts`
for each loop and directory of mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import ClassVar

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.bounds import NO_BOUNDS, Bounds
from fastlisten.mail.store.interface import StoreError
from fastlisten.mail.store.notices import Notices
from fastlisten.mail.store.resources import Resources
from fastlisten.mail.worker_threads import WorkerThreads

__all__ = ["OpenAccounts"]

logger = logging.getLogger("fastlisten.mail")

#: Threads of the pool. They wait for the disk and for locks; the index itself is read by one
#: thread of an account at a time.
THREADS = 8

#: Seconds after which is looked for what has happened without a notice.
SWEEP = 30.0

#: Accounts without sessions that stay open, and for how many seconds: clients come back.
UNUSED_ACCOUNTS = 64
UNUSED_FOR = 300.0


class OpenAccounts:
    """The open accounts below a directory, on one loop.

    Get it by `enter`, and give it back by `leave`.

    Attributes:
        resources: what the accounts share.
    """

    _open: ClassVar[dict[tuple[str, asyncio.AbstractEventLoop], OpenAccounts]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, asyncio.AbstractEventLoop]) -> None:
        self._key = key
        self._users = 0
        self._pool = WorkerThreads(THREADS, "store")
        self.resources = Resources(self._pool, _notices())
        self._accounts: dict[str, MaildirAccount] = {}
        self._sessions: dict[str, int] = {}
        self._unused: OrderedDict[str, float] = OrderedDict()  # since when
        self._closing: set[asyncio.Task[None]] = set()
        self._timer = key[1].call_later(SWEEP, self._sweep)

    @classmethod
    def enter(cls, directory: str) -> OpenAccounts:
        """Return the open accounts below a directory, and count as a user until `leave`."""
        key = (directory, asyncio.get_running_loop())
        with cls._registry:
            found = cls._open.get(key)
            if found is None:
                found = cls._open[key] = cls(key)
            found._users += 1
            return found

    async def leave(self) -> None:
        """Stop being a user; the last one closes all accounts."""
        with self._registry:
            self._users -= 1
            if self._users:
                return
            self._open.pop(self._key, None)
        self._timer.cancel()
        while self._closing:
            await asyncio.wait(self._closing)
        self.resources.stop()
        await self.resources.settle()
        for account in self._accounts.values():
            await _close(account)
        self._accounts.clear()
        if self.resources.notices is not None:
            self.resources.notices.close()
        await asyncio.to_thread(self._pool.shutdown)

    def _sweep(self) -> None:
        """Have accounts look for what has happened without a notice; close those without use."""
        self._timer = self._key[1].call_later(SWEEP, self._sweep)
        for account in self._accounts.values():
            account.sweep()
        self._close_unused()

    def acquire(
        self,
        root: str,
        quota: Callable[[], Quota] = lambda: NO_QUOTA,
        special: Mapping[str, str] | None = None,
        bounds: Bounds = NO_BOUNDS,
    ) -> MaildirAccount:
        """Return the account of a Maildir, for one more session.

        Args:
            root: the Maildir.
            quota: returns how much mail it may have; called in any thread.
            special: names of folders that a new account gets, by their special use.
            bounds: how many folders and keywords it may have.
        """
        account = self._accounts.get(root)
        if account is None:
            account = self._accounts[root] = MaildirAccount(root, self.resources, quota, special)
        else:
            account.set_quota(quota)  # the user has logged in to what the account is now
        account.set_bounds(bounds)
        self._sessions[root] = self._sessions.get(root, 0) + 1
        self._unused.pop(root, None)
        return account

    def release(self, root: str) -> None:
        """End a session; after the last one the account stays open for a while."""
        self._sessions[root] -= 1
        if not self._sessions[root]:
            del self._sessions[root]
            self._unused[root] = time.monotonic()
            self._close_unused()

    def _close_unused(self) -> None:
        before = time.monotonic() - UNUSED_FOR
        while self._unused:
            root, since = next(iter(self._unused.items()))
            if len(self._unused) <= UNUSED_ACCOUNTS and since > before:
                return
            del self._unused[root]
            # Whoever comes back meanwhile gets another object, which locks the same file.
            task = self._key[1].create_task(_close(self._accounts.pop(root)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close(account: MaildirAccount) -> None:
    with contextlib.suppress(StoreError):  # which has been logged
        await account.close()


def _notices() -> Notices | None:
    try:
        return Notices()
    except OSError as error:
        logger.warning("%s; changes of mail are looked for every 30 s", error)
        return None
