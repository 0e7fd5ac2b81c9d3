"""Writes one message, which comes in pieces, from an event loop through a pool of threads.

Rules of this file: everything but `_work` and what it calls runs on the loop, and the loop never
waits for a disk. One connection uses a writer. It has at most one job in the pool at a time and
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
from collections.abc import Callable, Sequence

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.events import Delivered
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.delivery.storage import MailStorage
from fastlisten.mail.loop_calls import call_on

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
        prepared: the message is on the disk and waits for `commit`.
        done: the message has been delivered, or `error` says why not.
        error: why nobody can have it; what is added from then on is dropped.
        size: octets added.
    """

    __slots__ = (
        "_aborted",
        "_accounts",
        "_changed",
        "_goal",
        "_loop",
        "_pending",
        "_pending_size",
        "_staged",
        "_storage",
        "_working",
        "done",
        "error",
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
        """
        self._storage = storage
        self._accounts = tuple(accounts)
        self._staged = StagedMessage(
            [storage.maildir(account) for account in accounts],
            name,
            spool=storage.spool if spool else None,
            independent=independent,
        )
        self._loop = loop
        self._changed: Callable[[], None] | None = changed
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._working = False
        self._goal = _Goal.MORE
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
        paths = {account.name: self._storage.maildir(account).path for account in self._accounts}
        return {name: errors[path] for name, path in paths.items() if path in errors}

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
        pieces, self._pending = self._pending, []
        self._pending_size = 0
        self._working = True
        goal = self._goal
        self._storage.submit(lambda: self._work(pieces, goal))

    def _discard(self) -> None:
        if self._staged.opened:
            self._storage.submit(self._staged.discard)

    def _worked(self, goal: _Goal, error: OSError | None) -> None:
        """Handle the end of a job."""
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

    # --- in the pool --------------------------------------------------------------------------

    def _work(self, pieces: list[bytes], goal: _Goal) -> None:
        """Do one job."""
        failure: OSError | None = None
        staged = self._staged
        try:
            if not self._aborted and self._carry_out(pieces, goal):
                self._announce()
        except OSError as error:
            failure = error
            staged.discard()
        except Exception:
            # A bug must not leave a client without a reply, or a file behind.
            logger.exception("delivery of %s failed", staged.name)
            failure = OSError(errno.EIO, "internal error")
            staged.discard()
        if not call_on(self._loop, lambda: self._worked(goal, failure)) and staged.opened:
            staged.discard()

    def _carry_out(self, pieces: list[bytes], goal: _Goal) -> bool:
        """Write, and go as far as the goal says; return whether the message is delivered now."""
        staged = self._staged
        if goal is _Goal.PUBLISHED:
            staged.publish()
            return True
        staged.write(pieces)
        if goal is _Goal.FINISHED:
            return staged.commit(lambda: not self._aborted)
        if goal is _Goal.PREPARED:
            staged.prepare()
        else:
            staged.suspend()
        return False

    def _announce(self) -> None:
        if not self._storage.subscriptions:
            return
        for account in self._accounts:
            maildir = self._storage.maildir(account)
            if maildir.path not in self._staged.errors:
                path = f"{maildir.new}/{self._staged.name}"
                event = Delivered(account.name, self._staged.name, path, self.size)
                self._storage.subscriptions.announce(event)
