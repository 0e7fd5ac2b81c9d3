"""The post office: the one way into the mailboxes, for every protocol.

Rules of this file: what is shared. All listeners of a process that deliver to the same place use
one `PostOffice`, so that thousands of listeners have one pool of threads, one copy of the accounts
and one limit on what passwords cost. A protocol that receives a message in pieces uses
`MailboxDelivery`; one that has all of it calls `deliver`. Only jobs in the pool hold descriptors,
at most two for each thread; a delivery that waits for its client holds none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.events import Delivered
from fastlisten.mail.delivery.mailbox_room import MailboxRoom
from fastlisten.mail.delivery.message_writer import MessageWriter
from fastlisten.mail.delivery.storage import MailStorage
from fastlisten.mail.logins.logins import Logins
from fastlisten.mail.loop_calls import call_on
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.kept_indexes import KeptIndexes

__all__ = ["PostOffice"]


class PostOffice(MailStorage):
    """The place where mail is delivered: accounts, logins, and the storage of their mail.

    Attributes:
        accounts: who has a mailbox.
        logins: who may log in.
        quota: how much mail an account may have of which the accounts file says nothing.
    """

    _open: ClassVar[dict[tuple[Path, Path], PostOffice]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, data_directory: Path, accounts: Path) -> None:
        super().__init__(data_directory)
        self.accounts = Accounts(accounts)
        self.logins = Logins(self.accounts)
        self.quota = NO_QUOTA
        self._indexes = KeptIndexes()
        self._key = (data_directory, accounts)
        self._users = 0
        self._refreshing: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._lock = threading.Lock()

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
        """Stop being a user. The last one waits for everything that is being delivered. Blocks."""
        with self._registry:
            self._users -= 1
            if self._users:
                return
            self._open.pop(self._key, None)
        self.logins.close()
        self._pool.shutdown(wait=True)
        self._indexes.close()

    def quota_of(self, account: Account) -> Quota:
        """Return how much mail an account may have, by the accounts as they were last read."""
        roster = self.accounts.roster
        current = None if roster is None else roster.login(account.name)
        return (account if current is None else current).quota.over(self.quota)

    def room(self, account: Account) -> MailboxRoom | None:
        """Return the room in an account's mailbox, None if it has no limit."""
        quota = self.quota_of(account)
        if quota == NO_QUOTA:
            return None
        return MailboxRoom(self._indexes, self.maildir(account).path, quota)

    def subscribe(
        self, account_name: str, callback: Callable[[Delivered], None]
    ) -> Callable[[], None]:
        """Call back on the running loop whenever this process delivers to an account.

        Args:
            account_name: the account's name; it need not exist yet.
            callback: called with what was delivered.

        Returns:
            A function that ends the subscription.
        """
        return self.subscriptions.add(account_name, callback)

    async def deliver(self, accounts: Iterable[Account], data: bytes) -> str:
        """Deliver a message that is complete.

        If this is cancelled, the message is delivered to all accounts or to none.

        Args:
            accounts: the recipients, at least one; duplicates count once.
            data: the message, delivered as it is.

        Returns:
            The name of the file in every account's maildir.

        Raises:
            OSError: it could not be delivered; no account has it.
        """
        loop = asyncio.get_running_loop()
        name = unique_name()
        done = asyncio.Event()
        to = list({account.name: account for account in accounts}.values())
        message = MessageWriter(self, to, name, loop, done.set)
        message.add(data)
        message.commit()
        try:
            while not message.done:
                await done.wait()
                done.clear()
        except BaseException:
            message.abort()
            raise
        if message.error is not None:
            raise message.error
        return name

    def refresh(self, loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
        """Reload the accounts in the pool if the file has changed, then call back on the loop.

        Callers that come while the file is being read share that reading.
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
