"""The post office: the one way into the maildirs, for every protocol.

Rules of this file: what is shared. A `PostOffice` is one for all listeners of a process that
deliver to the same place, so that thousands of listeners have one pool of threads, one copy of
the accounts, and one bound on what passwords cost. Protocols that get a message piece by piece
write a `Letter`; who has it whole calls `deliver`. Descriptors are held by jobs alone, two for
each thread at most, never by a letter that waits for its client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.delivery import Letter
from fastlisten.mail.delivery.events import Delivered, Subscriptions, call_on
from fastlisten.mail.logins.logins import Logins
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool, unique_name

__all__ = ["Delivered", "Letter", "PostOffice"]

logger = logging.getLogger("fastlisten.mail")

#: Threads of the pool. They wait for fsync, not for the processor: a few let the filesystem's
#: journal commit several messages at once, many would only queue for the same disk.
THREADS = 8


class PostOffice:
    """The place where mail is delivered: accounts, maildirs and the threads that write them.

    Attributes:
        accounts: who has a mailbox.
        logins: who may log in.
        mail: the directory above all maildirs.
        spool: where mail lies that is for others, or not for accounts alone.
        subscriptions: who waits for mail.
        cleaned: done when what crashes left in tmp/ directories has been removed.
    """

    _open: ClassVar[dict[tuple[Path, Path], PostOffice]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, data_directory: Path, accounts: Path) -> None:
        self.accounts = Accounts(accounts)
        self.logins = Logins(self.accounts)
        self.mail = data_directory / "mail"
        self.spool = Spool(str(data_directory / "spool"))
        self.subscriptions = Subscriptions()
        self._key = (data_directory, accounts)
        self._users = 0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="delivery")
        self._refreshing: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._lock = threading.Lock()
        self.cleaned: Future[int] = self._pool.submit(self._clean)

    @classmethod
    def enter(cls, data_directory: str, accounts: str = "") -> PostOffice:
        """Return the post office of a data directory, and count as its user until `leave`.

        Args:
            data_directory: holds ``mail/``.
            accounts: the accounts file, ``accounts.toml`` in the data directory if empty.
        """
        directory = Path(data_directory).absolute()
        key = (directory, Path(accounts).absolute() if accounts else directory / "accounts.toml")
        with cls._registry:
            office = cls._open.get(key)
            if office is None:
                office = cls._open[key] = cls(*key)
            office._users += 1
            return office

    def leave(self) -> None:
        """Stop being a user; the last one waits for all that is being delivered. Blocks."""
        with self._registry:
            self._users -= 1
            if self._users:
                return
            self._open.pop(self._key, None)
        self.logins.close()
        self._pool.shutdown(wait=True)

    def maildir(self, account: Account) -> Maildir:
        """Return the maildir of an account."""
        return Maildir(f"{self.mail}/{account.directory}")

    def subscribe(
        self, account_name: str, callback: Callable[[Delivered], None]
    ) -> Callable[[], None]:
        """Call back on the running loop whenever this process has delivered to an account.

        Args:
            account_name: the account's name; it need not exist yet.
            callback: called with what was delivered.

        Returns:
            What ends the subscription.
        """
        return self.subscriptions.add(account_name, callback)

    async def deliver(self, accounts: Iterable[Account], data: bytes) -> str:
        """Deliver a message that is there as a whole.

        When this is cancelled the message is delivered to all or to nobody.

        Args:
            accounts: to whom, at least one; duplicates count once.
            data: the message, delivered as it is.

        Returns:
            The file's name in every account's maildir.

        Raises:
            OSError: nobody has it.
        """
        loop = asyncio.get_running_loop()
        name = unique_name()
        done = asyncio.Event()
        to = list({account.name: account for account in accounts}.values())
        letter = Letter(self, to, name, loop, done.set)
        letter.add(data)
        letter.finish()
        try:
            while not letter.done:
                await done.wait()
                done.clear()
        except BaseException:
            letter.abandon()
            raise
        if letter.error is not None:
            raise letter.error
        return name

    def submit(self, work: Callable[[], None]) -> None:
        """Run something in the pool; at once if the last user has left already.

        The latter is the removal of a draft whose connection was lost during the last moments.
        """
        try:
            self._pool.submit(work)
        except RuntimeError:
            work()

    def refresh(self, loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
        """Read the accounts again in the pool if the file has changed, then call back on the loop.

        Those who ask while it is being read share that reading.
        """
        with self._lock:
            self._refreshing.append((loop, then))
            if len(self._refreshing) > 1:
                return
        self._pool.submit(self._refresh)

    def _refresh(self) -> None:
        try:
            self.accounts.reload()
        finally:
            with self._lock:
                waiting, self._refreshing = self._refreshing, []
            for loop, then in waiting:
                call_on(loop, then)

    def _clean(self) -> int:
        """Remove stale files from the spool and every maildir, also of accounts that are gone."""
        removed = 0
        places = [self.spool]
        try:
            places.extend(Maildir(entry.path) for entry in os.scandir(self.mail))
        except FileNotFoundError:
            pass  # no mail yet
        except OSError as error:
            logger.warning("cannot clean %s: %s", self.mail, error)
        for place in places:
            try:
                removed += place.clean()
                if isinstance(place, Maildir):
                    removed += sum(place.folder(name).clean() for name in place.folders())
            except OSError as error:
                logger.warning("cannot clean %s: %s", place.path, error)
        if removed:
            logger.info("removed %d unfinished messages below %s", removed, self.mail.parent)
        return removed
