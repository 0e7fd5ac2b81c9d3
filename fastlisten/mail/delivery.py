"""Delivery: a message from the loop, piece by piece, into maildirs by a bounded pool of threads.

Rules of this file: the loop never waits for a disk. A `Letter` lives on the loop and is used by
one connection; each has at most one job in the pool at any time, and holds at most about twice
`SPOOL_SIZE` octets: what is more goes to the draft in tmp/ while the message is still coming in.
Descriptors are held by jobs alone, two for each thread at most, never by a letter that waits for
its client.
A `PostOffice` is shared by all listeners of a process that deliver to the same place, so that
thousands of listeners have one pool and one copy of the accounts.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from fastlisten.mail.accounts import Account, Accounts
from fastlisten.mail.maildir import Draft, Maildir

__all__ = ["Letter", "PostOffice"]

logger = logging.getLogger("fastlisten.mail")

#: Octets of a message that are kept in memory. Most mail is smaller and takes one job in the
#: pool; a larger one takes a job for each such piece.
SPOOL_SIZE = 128 * 1024

#: Threads of the pool. They wait for fsync, not for the processor: a few let the filesystem's
#: journal commit several messages at once, many would only queue for the same disk.
THREADS = 8


class PostOffice:
    """The place where mail is delivered: accounts, maildirs and the threads that write them.

    Attributes:
        accounts: who has a mailbox.
        mail: the directory above all maildirs.
        cleaned: done when what crashes left in tmp/ directories has been removed.
    """

    _open: ClassVar[dict[tuple[Path, Path], PostOffice]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, data_directory: Path, accounts: Path) -> None:
        self.accounts = Accounts(accounts)
        self.mail = data_directory / "mail"
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
        self._pool.shutdown(wait=True)

    def maildir(self, account: Account) -> Maildir:
        """Return the maildir of an account."""
        return Maildir(f"{self.mail}/{account.directory}")

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
        """Remove stale files from every maildir, also of accounts that exist no more."""
        removed = 0
        try:
            for entry in os.scandir(self.mail):
                try:
                    removed += Maildir(entry.path).clean()
                except OSError as error:
                    logger.warning("cannot clean %s: %s", entry.path, error)
        except FileNotFoundError:
            return 0
        except OSError as error:
            logger.warning("cannot clean %s: %s", self.mail, error)
        if removed:
            logger.info("removed %d unfinished messages below %s", removed, self.mail)
        return removed


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call back on a loop from a thread; whether the loop is still there."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


class Letter:
    """One message on its way, seen from the loop.

    Attributes:
        done: it has been delivered, or `error` says why not.
        error: why it cannot be delivered; what is added after that is dropped.
        size: octets added.
    """

    __slots__ = (
        "_abandoned",
        "_changed",
        "_draft",
        "_finishing",
        "_loop",
        "_office",
        "_pending",
        "_pending_size",
        "_working",
        "done",
        "error",
        "size",
    )

    def __init__(
        self,
        office: PostOffice,
        accounts: Sequence[Account],
        name: str,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
    ) -> None:
        """Begin a letter.

        Args:
            office: where to.
            accounts: to whom, at least one, all different.
            name: the file's name, from `unique_name`.
            loop: the loop on which everything is called.
            changed: called on the loop whenever a job in the pool has ended: `done` and `full`
                may have changed.
        """
        self._office = office
        self._draft = Draft([office.maildir(account) for account in accounts], name)
        self._loop = loop
        self._changed: Callable[[], None] | None = changed
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._working = False
        self._finishing = False
        self._abandoned = False
        self.done = False
        self.error: OSError | None = None
        self.size = 0

    @property
    def full(self) -> bool:
        """No more should be added until `changed` is called."""
        return self._working and self._pending_size >= SPOOL_SIZE

    def add(self, data: bytes) -> None:
        """Append to the message."""
        self.size += len(data)
        if self.error is None:
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size >= SPOOL_SIZE and not self._working:
                self._submit()

    def finish(self) -> None:
        """Deliver; `changed` is called when it is done, unless it is `done` at once."""
        self._finishing = True
        if not self._working:
            if self.error is None:
                self._submit()
            else:
                self.done = True

    def abandon(self) -> None:
        """Forget the message; it is not delivered unless that has happened already."""
        self._changed = None
        self._abandoned = True
        self._pending.clear()
        self._pending_size = 0
        if not self._working:
            self._discard()

    # --- on the loop --------------------------------------------------------------------------

    def _submit(self) -> None:
        pieces, self._pending = self._pending, []
        self._pending_size = 0
        self._working = True
        last = self._finishing
        self._office.submit(lambda: self._work(pieces, last))

    def _discard(self) -> None:
        if self._draft.opened:
            self._office.submit(self._draft.discard)

    def _worked(self, last: bool, error: OSError | None) -> None:
        """Take the end of a job."""
        self._working = False
        if self._abandoned:
            self._discard()
            return
        if error is not None:
            self.error = error
            self._pending.clear()
            self._pending_size = 0
        self.done = self._finishing and (last or error is not None)
        if not self.done and (self._finishing or self._pending_size >= SPOOL_SIZE):
            self._submit()
        if self._changed is not None:
            self._changed()

    # --- in the pool --------------------------------------------------------------------------

    def _work(self, pieces: list[bytes], last: bool) -> None:
        """Write, and deliver if these are the last pieces."""
        failure: OSError | None = None
        draft = self._draft
        try:
            if not self._abandoned:
                draft.write(pieces)
                if last:
                    draft.commit(lambda: not self._abandoned)
                else:
                    draft.suspend()
        except OSError as error:
            failure = error
            draft.discard()
        except Exception:
            # A fault of the code must not leave a client without an answer or a file behind.
            logger.exception("delivery of %s failed", draft.name)
            failure = OSError(errno.EIO, "internal error")
            draft.discard()
        if not call_on(self._loop, lambda: self._worked(last, failure)) and draft.opened:
            draft.discard()
