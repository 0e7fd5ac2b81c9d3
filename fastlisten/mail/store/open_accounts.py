"""The accounts that are open: one object for each, however many sessions read it.

Rules of this file: who shares what, and when it is closed. Sessions of one account must share the
object, because that is where they learn of each other's changes. A `MaildirAccount` belongs to one
loop, so there is one `OpenAccounts` for each loop and directory of mail.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.store.account import MaildirAccount

__all__ = ["OpenAccounts"]

#: Threads of the pool. They wait for the disk and for locks; the index itself is read by one
#: thread of an account at a time.
THREADS = 8

#: Seconds after which whoever watches an account looks what other processes have done to it, of
#: whose changes it is not told.
SWEEP = 30.0


class OpenAccounts:
    """The open accounts below a directory, on one loop.

    Get it by `enter`, and give it back by `leave`.
    """

    _open: ClassVar[dict[tuple[str, asyncio.AbstractEventLoop], OpenAccounts]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, asyncio.AbstractEventLoop]) -> None:
        self._key = key
        self._users = 0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._accounts: dict[str, tuple[MaildirAccount, int]] = {}  # with their sessions
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
        for account, _ in self._accounts.values():
            await account.close()
        self._accounts.clear()
        await asyncio.to_thread(self._pool.shutdown)

    def _sweep(self) -> None:
        """Have all accounts looked at that are watched."""
        self._timer = self._key[1].call_later(SWEEP, self._sweep)
        for account, _ in self._accounts.values():
            account.notify()

    def acquire(
        self,
        root: str,
        quota: Callable[[], Quota] = lambda: NO_QUOTA,
        special: Mapping[str, str] | None = None,
    ) -> MaildirAccount:
        """Return the account of a Maildir, for one more session.

        Args:
            root: the Maildir.
            quota: returns how much mail it may have; called in any thread.
            special: names of folders that a new account gets, by their special use.
        """
        found = self._accounts.get(root)
        account, sessions = found or (MaildirAccount(root, self._pool, quota, special), 0)
        self._accounts[root] = (account, sessions + 1)
        return account

    def release(self, root: str) -> None:
        """End a session; after the last one the account is closed."""
        account, sessions = self._accounts[root]
        self._accounts[root] = (account, sessions - 1)
        if sessions == 1:
            task = asyncio.get_running_loop().create_task(self._close(root, account))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, root: str, account: MaildirAccount) -> None:
        if self._accounts[root][1]:
            return  # somebody came back
        del self._accounts[root]
        await account.close()
