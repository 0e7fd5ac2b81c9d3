"""Writes one message, which comes in pieces, from an event loop through a pool of threads.

Rules of this file: everything above "in the pool" runs on the loop, and the loop never waits for a
disk. One connection uses a writer. It has at most one job in the pool at a time and
keeps about twice `SPOOL_SIZE` octets at most: the rest is written while the message still comes in.

    add, add, ...  commit             deliver; a small message takes a single job
    add, add, ...  prepare  commit    deliver in two steps, with something done in between
    abort                             at any time: don't deliver, unless that has happened already
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
from collections.abc import Callable, Mapping, Sequence

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.events import Delivered
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.delivery.storage import MailStorage
from fastlisten.mail.maildir.maildir import Maildir

__all__ = ["SPOOL_SIZE", "MessageWriter"]

logger = logging.getLogger("fastlisten.mail")

#: Octets of a message that are kept in memory. Most messages are smaller and take one job in the
#: pool; a larger one takes a job for each piece of this size.
SPOOL_SIZE = 128 * 1024

#: The least that a piece counts, in octets. A bytes object and its place in a list take 41 octets
#: even if empty: a client that sends two octets at a time could make us hold 20 times `SPOOL_SIZE`.
PIECE_COST = 64


class _Goal(enum.Enum):
    """How far a message, or one of its jobs, is to go."""

    MORE = enum.auto()
    PREPARED = enum.auto()
    FINISHED = enum.auto()
    PUBLISHED = enum.auto()


class MessageWriter:
    """One message that is being written.

    Attributes:
        loop: where its owner is.
        prepared: the message is on the disk and waits for `commit`.
        done: the message has been delivered, or `error` says why not.
        error: why nobody can have it; what is added from then on is dropped.
        size: octets added.
    """

    __slots__ = (
        "_aborted",
        "_accounts",
        "_changed",
        "_failure",
        "_goal",
        "_job",
        "_job_pieces",
        "_maildirs",
        "_moved",
        "_pending",
        "_pending_size",
        "_staged",
        "_storage",
        "_working",
        "done",
        "error",
        "loop",
        "prepared",
        "size",
    )

    def __init__(
        self,
        storage: MailStorage,
        accounts: Sequence[Account],
        name: str,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        *,
        independent: bool = False,
        spool: bool = False,
        folders: Mapping[str, Maildir] | None = None,
    ) -> None:
        """Begin a message.

        Args:
            storage: where to.
            accounts: the recipients, all different; at least one unless `spool` is true.
            name: the file's name, from `unique_name`.
            loop: the loop on which everything is called.
            changed: called on the loop whenever a job in the pool has ended: `done`, `prepared`
                and `full` may have changed.
            independent: the failure of one account does not concern the others; see `errors`.
            spool: write to the spool first, and remove the file there at the end.
            folders: where it goes, by the account's name, if not into the inbox.
        """
        self._storage = storage
        self._accounts = tuple(accounts)
        self._maildirs = {account.name: storage.maildir(account) for account in accounts}
        self._maildirs.update(folders or {})
        self._staged = StagedMessage(
            [self._maildirs[account.name] for account in accounts],
            name,
            spool=storage.spool if spool else None,
            independent=independent,
            rooms={
                self._maildirs[account.name].path: room
                for account in accounts
                if (room := storage.room(account)) is not None
            },
        )
        self.loop = loop
        self._changed: Callable[[], None] | None = changed
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._working = False
        self._goal = _Goal.MORE
        # The job in the pool, which a thread works on: what it is to write, how far it is to go,
        # how far it came.
        self._job_pieces: Sequence[bytes] = ()
        self._job = _Goal.MORE
        self._moved = False
        self._failure: OSError | None = None
        self._aborted = False
        self.prepared = False
        self.done = False
        self.error: OSError | None = None
        self.size = 0

    @property
    def full(self) -> bool:
        """Whether to wait for `changed` before more is added."""
        return self._working and self._pending_size >= SPOOL_SIZE

    @property
    def path(self) -> str:
        """The file in which a thread can read the message while it is `prepared`."""
        return self._staged.path

    @property
    def errors(self) -> dict[str, OSError]:
        """Why independent accounts did not get the message although others did, by account name.

        Complete when the message is `done`; meaningless if `error` is set.
        """
        errors = self._staged.errors
        maildirs = self._maildirs.items()
        return {name: errors[box.path] for name, box in maildirs if box.path in errors}

    def add(self, data: bytes) -> None:
        """Append to the message."""
        self.size += len(data)
        if self.error is None:
            self._pending.append(data)
            self._pending_size += max(len(data), PIECE_COST)
            if self._pending_size >= SPOOL_SIZE and not self._working:
                self._submit()

    def prepare(self) -> None:
        """Make the message durable without showing it to anybody; little can fail after that.

        `changed` is called when it is `prepared`, or `done` with an error, unless it is `done`
        at once.
        """
        self._aim(_Goal.PREPARED)

    def commit(self) -> None:
        """Deliver; `changed` is called when that is done, unless it is `done` at once."""
        self._aim(_Goal.PUBLISHED if self.prepared else _Goal.FINISHED)

    def abort(self) -> None:
        """Drop the message, unless it has been delivered already."""
        self._changed = None
        self._aborted = True
        self._pending.clear()
        self._pending_size = 0
        if not self._working:
            self._discard()

    # --- on the loop --------------------------------------------------------------------------

    def _aim(self, goal: _Goal) -> None:
        self._goal = goal
        if not self._working:
            if self.error is None:
                self._submit()
            else:
                self.done = True

    def _submit(self) -> None:
        self._job_pieces, self._pending = self._pending, []
        self._pending_size = 0
        self._working = True
        self._job = self._goal
        self._storage.queue.submit(self)

    def _discard(self) -> None:
        if self._staged.opened:
            self._storage.submit(self._staged.discard)

    def worked(self) -> None:
        """Handle the end of a job."""
        goal, error = self._job, self._failure
        self._working = False
        if self._aborted:
            self._discard()
            return
        if error is not None:
            self.error = error
            self._pending.clear()
            self._pending_size = 0
            self.done = self._goal is not _Goal.MORE
        else:
            self.prepared = goal is _Goal.PREPARED
            self.done = goal in (_Goal.FINISHED, _Goal.PUBLISHED)
            if goal is not self._goal or self._pending_size >= SPOOL_SIZE:
                self._submit()
        if self._changed is not None:
            self._changed()

    # --- in the pool: one job, as delivery_queue.py describes it ------------------------------

    def write(self) -> bool:
        """Write, and make durable if the goal says so; return whether to move the message now."""
        goal, pieces, self._job_pieces = self._job, self._job_pieces, ()
        staged = self._staged
        if self._aborted:
            return False
        if goal is _Goal.PUBLISHED:
            return True
        try:
            staged.write(pieces)
            if goal is _Goal.MORE:
                staged.suspend()
            else:
                staged.prepare()
                if goal is _Goal.PREPARED:
                    staged.take_room()
        except Exception as error:
            self._fail(error)
            return False
        return goal is _Goal.FINISHED

    def move(self) -> Sequence[str]:
        """Show the message to its recipients, unless it is not wanted any more."""
        try:
            if not self._aborted:
                directories = self._staged.move()
                self._moved = True
                return directories
            self._clear()
        except Exception as error:
            self._fail(error)
        return ()

    def settle(self, errors: Mapping[str, OSError]) -> None:
        """Leave the message to its recipients, and tell who has subscribed."""
        if not self._moved:
            return
        try:
            self._staged.settle(errors)
            self._announce()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Note why the job has failed, and leave nothing behind."""
        if not isinstance(error, OSError):
            # A bug must not leave a client without a reply, or a file behind.
            logger.error("delivery of %s failed", self._staged.name, exc_info=error)
            error = OSError(errno.EIO, "internal error")
        self._failure = error
        self._clear()

    def orphaned(self) -> None:
        """Leave nothing behind."""
        if self._staged.opened:
            self._clear()

    def _clear(self) -> None:
        """Discard the files. If that fails, the others of the group must get their replies."""
        try:
            self._staged.discard()
        except Exception:
            logger.exception("files of %s are left behind", self._staged.name)

    def _announce(self) -> None:
        if not self._storage.subscriptions:
            return
        for account in self._accounts:
            maildir = self._maildirs[account.name]
            if maildir.path not in self._staged.errors:
                path = f"{maildir.new}/{self._staged.name}"
                event = Delivered(account.name, self._staged.name, path, self.size)
                self._storage.subscriptions.announce(event)
