"""Where mail is written: the maildirs, the spool, and the threads that write there.

Rules of this file: what a single delivery needs. Who has a mailbox, and who shares the storage, is
decided in post_office.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.delivery_queue import DeliveryQueue
from fastlisten.mail.delivery.events import Subscriptions
from fastlisten.mail.delivery.mailbox_room import MailboxRoom
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
from fastlisten.mail.worker_threads import WorkerThreads

__all__ = ["MailStorage"]

logger = logging.getLogger("fastlisten.mail")

#: Threads of the pool. They wait for fsync, not for the processor: a few let the filesystem's
#: journal commit several messages at once, many would only queue for the same disk.
THREADS = 8


class MailStorage:
    """The directories where mail is written, and a pool of threads.

    Attributes:
        mail: the directory above all maildirs.
        spool: for messages that are not, or not only, for accounts here.
        subscriptions: who is told of new mail.
        queue: messages that wait for a thread.
        cleaned: done when the files that crashes have left in tmp/ directories are removed.
    """

    def __init__(self, data_directory: Path) -> None:
        self.mail = data_directory / "mail"
        self.spool = Spool(str(data_directory / "spool"))
        self.subscriptions = Subscriptions()
        self._pool = WorkerThreads(THREADS, "delivery")
        self.queue = DeliveryQueue(self._pool, THREADS)
        self.cleaned: Future[int] = self._pool.submit(self._clean)

    def maildir(self, account: Account) -> Maildir:
        """Return the maildir of an account."""
        return Maildir(f"{self.mail}/{account.directory}")

    def room(self, account: Account) -> MailboxRoom | None:
        """Return the room in an account's mailbox, None if it has no limit."""
        return None

    def submit(self, work: Callable[[], None]) -> None:
        """Run something in the pool, or at once if the pool has been shut down.

        The latter removes the files of a message whose connection was lost during shutdown.
        """
        try:
            self._pool.submit(work)
        except RuntimeError:
            work()

    def _clean(self) -> int:
        """Remove stale files from the spool and all maildirs, those of removed accounts too."""
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
