"""Letter: one message on its way, from a loop, piece by piece, through the post office's pool.

Rules of this file: everything but `_work` is called on the loop, and the loop never waits for a
disk. A letter is used by one connection; it has at most one job in the pool at any time, and holds
at most about twice `SPOOL_SIZE` octets: what is more goes to the draft while the message is still
coming in. What can be asked of it:

    add, add, ...  finish               delivered, all in one job if it is small
    add, add, ...  prepare  publish     delivered, with time in between to do something else first
    abandon                             at any time: it is not delivered unless it has been already
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.events import Delivered, call_on
from fastlisten.mail.delivery.staged_message import Draft

if TYPE_CHECKING:
    from fastlisten.mail.delivery.post_office import PostOffice

__all__ = ["SPOOL_SIZE", "Letter"]

logger = logging.getLogger("fastlisten.mail")

#: Octets of a message that are kept in memory. Most mail is smaller and takes one job in the
#: pool; a larger one takes a job for each such piece.
SPOOL_SIZE = 128 * 1024

#: What a piece counts at least: an empty object of bytes and its place in a list take 41 octets, so
#: that clients who send two octets at a time would have us hold twenty times `SPOOL_SIZE`.
PIECE_COST = 64


class _Goal(enum.Enum):
    """What a letter, or one of its jobs, is to reach."""

    MORE = enum.auto()
    PREPARED = enum.auto()
    FINISHED = enum.auto()
    PUBLISHED = enum.auto()


class Letter:
    """One message on its way, seen from the loop.

    Attributes:
        prepared: it waits, durable, for `publish`.
        done: it has been delivered, or `error` says why not.
        error: why nobody can have it; what is added after that is dropped.
        size: octets added.
    """

    __slots__ = (
        "_abandoned",
        "_accounts",
        "_changed",
        "_draft",
        "_goal",
        "_loop",
        "_office",
        "_pending",
        "_pending_size",
        "_working",
        "done",
        "error",
        "prepared",
        "size",
    )

    def __init__(
        self,
        office: PostOffice,
        accounts: Sequence[Account],
        name: str,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        *,
        independent: bool = False,
        spool: bool = False,
    ) -> None:
        """Begin a letter.

        Args:
            office: where to.
            accounts: to whom, all different; at least one unless it goes through the spool.
            name: the file's name, from `unique_name`.
            loop: the loop on which everything is called.
            changed: called on the loop whenever a job in the pool has ended: `done`, `prepared`
                and `full` may have changed.
            independent: an account's failure is not the others': `errors` tells.
            spool: write to the spool first, and remove it from there at the end.
        """
        self._office = office
        self._accounts = tuple(accounts)
        self._draft = Draft(
            [office.maildir(account) for account in accounts],
            name,
            spool=office.spool if spool else None,
            independent=independent,
        )
        self._loop = loop
        self._changed: Callable[[], None] | None = changed
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._working = False
        self._goal = _Goal.MORE
        self._abandoned = False
        self.prepared = False
        self.done = False
        self.error: OSError | None = None
        self.size = 0

    @property
    def full(self) -> bool:
        """No more should be added until `changed` is called."""
        return self._working and self._pending_size >= SPOOL_SIZE

    @property
    def path(self) -> str:
        """Where the message can be read while it is prepared, by a thread."""
        return self._draft.path

    @property
    def errors(self) -> dict[str, OSError]:
        """By name, the independent accounts that go without it although others have it.

        Complete when the letter is done; without meaning if `error` is set.
        """
        errors = self._draft.errors
        paths = {account.name: self._office.maildir(account).path for account in self._accounts}
        return {name: errors[path] for name, path in paths.items() if path in errors}

    def add(self, data: bytes) -> None:
        """Append to the message."""
        self.size += len(data)
        if self.error is None:
            self._pending.append(data)
            self._pending_size += max(len(data), PIECE_COST)
            if self._pending_size >= SPOOL_SIZE and not self._working:
                self._submit()

    def finish(self) -> None:
        """Deliver; `changed` is called when it is done, unless it is `done` at once."""
        self._aim(_Goal.FINISHED)

    def prepare(self) -> None:
        """Make it durable, so that hardly anything can fail any more; nobody sees it yet.

        `changed` is called when it is `prepared`, or `done` with an error, unless it is `done`
        at once.
        """
        self._aim(_Goal.PREPARED)

    def publish(self) -> None:
        """Deliver what is prepared; `changed` is called when it is done."""
        assert self.prepared
        self._aim(_Goal.PUBLISHED)

    def abandon(self) -> None:
        """Forget the message; it is not delivered unless that has happened already."""
        self._changed = None
        self._abandoned = True
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
        self._office.submit(lambda: self._work(pieces, goal))

    def _discard(self) -> None:
        if self._draft.opened:
            self._office.submit(self._draft.discard)

    def _worked(self, goal: _Goal, error: OSError | None) -> None:
        """Take the end of a job."""
        self._working = False
        if self._abandoned:
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
        draft = self._draft
        try:
            if not self._abandoned and self._carry_out(pieces, goal):
                self._announce()
        except OSError as error:
            failure = error
            draft.discard()
        except Exception:
            # A fault of the code must not leave a client without an answer or a file behind.
            logger.exception("delivery of %s failed", draft.name)
            failure = OSError(errno.EIO, "internal error")
            draft.discard()
        if not call_on(self._loop, lambda: self._worked(goal, failure)) and draft.opened:
            draft.discard()

    def _carry_out(self, pieces: list[bytes], goal: _Goal) -> bool:
        """Write, and do what else the goal demands; whether the message is delivered now."""
        draft = self._draft
        if goal is _Goal.PUBLISHED:
            draft.publish()
            return True
        draft.write(pieces)
        if goal is _Goal.FINISHED:
            return draft.commit(lambda: not self._abandoned)
        if goal is _Goal.PREPARED:
            draft.prepare()
        else:
            draft.suspend()
        return False

    def _announce(self) -> None:
        if not self._office.subscriptions:
            return
        for account in self._accounts:
            maildir = self._office.maildir(account)
            if maildir.path not in self._draft.errors:
                path = f"{maildir.new}/{self._draft.name}"
                event = Delivered(account.name, self._draft.name, path, self.size)
                self._office.subscriptions.announce(event)
