r"""A folder that is in use in this process: its state, shared by all sessions that have it open.

Rules of this file: when a folder is looked at, and who is told. On the loop. What is new comes from
two sides:

    the index     `IndexUse.number` has grown: somebody has committed a change
    new/, cur/    they are watched: something was delivered, or another program is at work

If neither has changed since the state was last brought up to date, it is up to date. All sessions
that wait for the same look share it. What a look itself moves from new/ into cur/ is noticed too:
if nothing else was, the directories are not looked into again.

If something cannot be watched, every `refresh` looks. All the same a look is made after
`LOOK_AFTER` by who asks: a process may die between a change and its notice.

``\Recent`` (RFC 3501 2.3.2): the index has the first UID that no session has been told to be
recent. A process whose session may take them (`takers`) moves it on, and whoever syncs first in
the process gets them.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from dataclasses import dataclass

from fastlisten.mail.store import folders, reading
from fastlisten.mail.store.absorb import Looked, look
from fastlisten.mail.store.changes import are_many, changes, loaded
from fastlisten.mail.store.folder_state import SLICE, FolderState, FolderView, Loaded
from fastlisten.mail.store.folders import FolderRow
from fastlisten.mail.store.index import Index, cannot_write
from fastlisten.mail.store.index_use import IndexUse
from fastlisten.mail.store.interface import (
    Changes,
    FactColumns,
    FolderNotFoundError,
    Status,
    StoreError,
)
from fastlisten.mail.store.notices import ENDED, FOLDER, MOVED, MOVED_FROM, MOVED_TO

__all__ = ["LOOK_AFTER", "SEARCHED_FOR", "SharedFolder"]

logger = logging.getLogger("fastlisten.mail")

#: Seconds after which a folder in use is looked at even if nothing seems to have changed, and
#: compared with its directory if another program may have changed that twice within a tick.
LOOK_AFTER = 30.0

#: Messages of a folder whose sizes and dates are remembered for searches: 20 octets each.
_SEARCHED = 100_000

#: Seconds for which they are: another program may have replaced a file, and so its size.
SEARCHED_FOR = 60.0

#: Seconds after which a directory is looked at again that has changed too recently to tell what is
#: missing from it (files.py).
AGAIN_AFTER = 0.05


class Owner:
    """Who has shared folders: an account. A base class, so that it can be told."""

    __slots__ = ()

    def forget(self, folder: SharedFolder) -> None:
        """Forget a folder that has been dropped."""
        raise NotImplementedError


class Idler:
    """Who waits for something to happen in a folder: a session in IDLE."""

    __slots__ = ()

    def happened(self) -> None:
        """Take note that `sync` has something to return, or to raise."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look has found.

    Attributes:
        row: the folder's, as it is called now.
        recent: the first UID that no session of any process has taken as recent.
        taken: UIDs that this process has taken; they may be empty.
        again: something may be missing, but it is too early to tell.
        moved: files that were moved from new/ into cur/.
        news: of the folder's messages, if asked for.
        status: the folder's sums, if asked for.
    """

    row: FolderRow
    recent: int
    taken: range
    again: bool
    moved: int
    news: Changes | Loaded | None = None
    status: Status | None = None


class SharedFolder:
    """A folder in use.

    Args:
        owner: is told when it is dropped.
        use: the account's index.
        row: the folder.

    Attributes:
        row: as given, or with the name that it has got since.
        state: its messages; empty until the first `refresh`.
        status: its sums as of the last `refresh_status`.
        dropped: nobody uses it any more, and its account has forgotten it.
        sessions: how many have it open.
        takers: how many of them may take what is recent.
    """

    __slots__ = (
        "_begun",
        "_compared",
        "_done",
        "_facts",
        "_facts_timer",
        "_fresh",
        "_idlers",
        "_looked",
        "_looked_status",
        "_moves",
        "_number",
        "_number_status",
        "_owner",
        "_recent",
        "_running",
        "_stirs",
        "_stirs_seen",
        "_stirs_status",
        "_strange",
        "_strange_compared",
        "_task",
        "_use",
        "_watch_cur",
        "_watch_new",
        "dropped",
        "row",
        "sessions",
        "state",
        "status",
        "takers",
    )

    def __init__(self, owner: Owner, use: IndexUse, row: FolderRow) -> None:
        self.row = row
        self.state = FolderState()
        self.status: Status | None = None
        self.sessions = self.takers = 0
        self.dropped = False
        self._owner = owner
        self._use = use
        self._watch_new = self._watch_cur = -1
        self._stirs = 0  # grows when something happens in new/ or cur/
        self._stirs_seen = self._stirs_status = -1
        self._moves = 0  # those that a look may have made: out of new/, and into cur/
        self._strange = 0  # those that another program may have made in cur/
        self._strange_compared = -1
        self._number = self._number_status = 0  # of the index, as of the last refresh
        self._looked = self._looked_status = self._compared = 0.0
        self._begun = self._done = 0  # refreshes that are shared
        self._running: asyncio.Future[None] | None = None
        self._recent = 1
        self._fresh: tuple[range, ...] = ()  # taken by this process, not yet by a session
        self._idlers: tuple[Idler, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._facts: FactColumns | None = None
        self._facts_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.state)

    # --- watching -----------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether everything that happens to it is noticed."""
        return self._watch_new >= 0 and self._watch_cur >= 0 and self._use.watched

    def watch(self) -> None:
        """Watch its directories, which have just been looked at."""
        notices = self._use.resources.notices
        if notices is None:
            return
        root = self._use.root
        path = f"{root}/{self.row.directory}" if self.row.directory else root
        before = self._watch_new, self._watch_cur
        now = notices.add(f"{path}/new", FOLDER, self), notices.add(f"{path}/cur", FOLDER, self)
        if now != before:
            for watch in before:
                if watch not in now:
                    notices.remove(watch, self)
            self._watch_new, self._watch_cur = now
            self._stir()  # by what happened before they were watched
        if not self._use.watched:
            self._use.watch()

    def noticed(self, watch: int, mask: int) -> None:
        """Take note of what has happened in a directory (`Noticed`)."""
        self._stirs += 1
        if watch != self._watch_new or not mask:
            self._strange += 1
            self._moves += mask == MOVED_TO
        else:
            self._moves += mask == MOVED_FROM
        if mask & (ENDED | MOVED):
            self._unwatch()
        if self._idlers:
            self.wake()

    def _stir(self) -> None:
        """Have the directories looked into, and compared, again."""
        self._stirs += 1
        self._strange += 1

    def _unwatch(self) -> None:
        notices = self._use.resources.notices
        if notices is not None:
            notices.remove(self._watch_new, self)
            notices.remove(self._watch_cur, self)
        self._watch_new = self._watch_cur = -1

    def drop(self) -> None:
        """Give back everything; nobody has it open."""
        self._use.resources.unkeep(self)
        self._unwatch()
        if not self.dropped:
            self.dropped = True
            self._owner.forget(self)

    # --- being up to date ---------------------------------------------------------------------

    def poll(self) -> None:
        """Take note of everything that has happened until now."""
        notices = self._use.resources.notices
        if notices is not None:
            notices.poll()

    def is_current(self) -> bool:
        """Return whether nothing that was noticed has happened since the last refresh."""
        return (
            self._number == self._use.number
            and self._stirs_seen == self._stirs
            and self.watched
            and not (self.takers and self._recent < self.state.uidnext)
            and time.monotonic() - self._looked < LOOK_AFTER
        )

    async def refresh(self) -> None:
        """Bring the state up to date with its directories and the index.

        Raises:
            FolderNotFoundError: the folder has been deleted.
            StoreError: it cannot be read.
        """
        self.poll()
        if self.is_current():
            return
        if not self.watched:
            self.watch()
        if not self.watched:
            await self._refresh()
            return
        # One that has begun before may have missed something; the next one has not.
        wanted = self._begun + 1
        while self._done < wanted and not self.is_current():
            if self._running is not None:
                await asyncio.wait([self._running])
                continue
            self._begun += 1
            self._running = running = asyncio.get_running_loop().create_future()
            try:
                await self._refresh()
                self._done = self._begun
            finally:
                self._running = None
                running.set_result(None)

    async def _refresh(self) -> None:
        state, now = self.state, time.monotonic()
        late = now - self._looked >= LOOK_AFTER
        if late:
            self.watch()  # the directories may have been replaced
        elif self._use.watched:
            self._use.watch()
        number, stirs = self._use.number, self._stirs
        moves, strange, moved = self._moves, self._strange, 0
        first = not state.cursor
        thorough = not first and (
            now - self._compared >= LOOK_AFTER
            and not (self.watched and strange == self._strange_compared)
        )
        look_at_it = first or thorough or late or stirs != self._stirs_seen or not self.watched
        while True:
            since = state.cursor
            found = await self._use.use(
                _refreshed,
                self.row.id,
                look_at_it=look_at_it,
                thorough=thorough,
                first=first,
                take=self.takers > 0,
                since=since,
            )
            self._take(found)
            moved += found.moved
            news = found.news
            assert news is not None
            # Another session may have been faster; what is found counts from where the state is.
            if state.cursor == since:
                if isinstance(news, Loaded):
                    state.load(news)
                else:
                    state.apply(news)
                break
            if news.cursor <= state.cursor:
                break
            thorough = first = False
        if first or thorough:
            self._compared, self._strange_compared = now, strange
        if moved:
            self.poll()
            # The kernel merges an event only with the same one just before it: whatever others
            # have done meanwhile adds to the number.
            if self._stirs - stirs == self._moves - moves == 2 * moved:
                stirs = self._stirs
                self._strange -= moved
        self._number, self._stirs_seen = number, stirs
        if look_at_it:
            self._looked = now
        if found.again:
            self._stir()
            if self._idlers:
                asyncio.get_running_loop().call_later(AGAIN_AFTER, self.wake)

    def _take(self, found: _Found) -> None:
        if found.row.uidvalidity != self.row.uidvalidity:
            self._forget_facts()
        self.row = found.row
        self._recent = found.recent
        if found.taken:
            self._fresh = (*self._fresh, found.taken)

    async def refresh_status(self) -> Status:
        """Return its sums.

        Raises:
            FolderNotFoundError: the folder has been deleted.
            StoreError: it cannot be read.
        """
        self.poll()
        if not self.watched:
            self.watch()
        now, number, stirs = time.monotonic(), self._use.number, self._stirs
        if (
            self.status is not None
            and number == self._number_status
            and stirs == self._stirs_status
            and self.watched
            and now - self._looked_status < LOOK_AFTER
        ):
            return self.status
        self._use.resources.unkeep(self)
        try:
            found = await self._use.use(_refreshed, self.row.id, look_at_it=True)
        except FolderNotFoundError:
            if not self.sessions:
                self.drop()
            raise
        finally:
            self._keep()
        assert found.status is not None
        self.row, self.status = found.row, found.status
        self._number_status, self._stirs_status, self._looked_status = number, stirs, now
        if found.again:
            self._stir()
        return found.status

    # --- searches -----------------------------------------------------------------------------

    async def fact_columns(self) -> FactColumns | None:
        """Return sizes and dates of its messages; None if there are too many.

        Some that are in `state` may be missing; others may be gone.

        Raises:
            StoreError: they cannot be read.
        """
        uids = self.state.uids
        if len(uids) > _SEARCHED:
            return None
        known = self._facts
        if known is not None and len(known.uids) > 2 * len(uids) + SLICE:
            known = None  # most of them are gone
        if known is None or (uids and uids[-1] > (known.uids[-1] if known.uids else 0)):
            known = await self._use.use(reading.fact_columns, self.row.id, known, 2 * _SEARCHED)
        if self.sessions:
            self._facts = known
            if self._facts_timer is None:
                later = asyncio.get_running_loop().call_later
                self._facts_timer = later(SEARCHED_FOR, self._forget_facts)
        return known

    def _forget_facts(self) -> None:
        self._facts = None
        if self._facts_timer is not None:
            self._facts_timer.cancel()
            self._facts_timer = None

    # --- sessions -----------------------------------------------------------------------------

    async def enter(self, *, read_only: bool) -> None:
        """Count one more session, and bring the state up to date for it.

        Raises:
            FolderNotFoundError: the folder has been deleted.
            StoreError: it cannot be read.
        """
        self._use.resources.unkeep(self)
        self.sessions += 1
        self.takers += not read_only
        try:
            await self.refresh()
        except FolderNotFoundError:
            self.leave(read_only=read_only)
            if not self.sessions:
                self.drop()
            raise
        except BaseException:
            self.leave(read_only=read_only)
            raise

    def leave(self, *, read_only: bool) -> None:
        """Count one session less; after the last one it is kept until there is no room."""
        self.sessions -= 1
        self.takers -= not read_only
        if not self.sessions:
            self._forget_facts()
        self._keep()

    def _keep(self) -> None:
        if not self.sessions and not self.dropped:
            self._use.resources.keep(self)

    def recent_for(self, view: FolderView, uidnext: int, *, read_only: bool) -> tuple[range, ...]:
        """Return what is recent for a session of the UIDs that it sees; others do not get it.

        Args:
            view: the session's.
            uidnext: what the session has seen before is below this.
            read_only: it must leave them recent for others.
        """
        if read_only:
            first = max(self._recent, uidnext)
            return (range(first, view.uidnext),) if first < view.uidnext else ()
        fresh, self._fresh = self._fresh, ()
        return fresh

    def add_idler(self, idler: Idler) -> None:
        """Have a session told when something happens."""
        if idler not in self._idlers:
            self._idlers = (*self._idlers, idler)

    def remove_idler(self, idler: Idler) -> None:
        """Tell a session no more."""
        if idler in self._idlers:
            self._idlers = tuple(one for one in self._idlers if one is not idler)

    def sweep(self) -> None:
        """Look whether something has happened without a notice."""
        # A look has failed, or another program may have been at work.
        missed = self._number != self._use.number or self._stirs_seen != self._stirs
        if missed or not self.watched or self._strange != self._strange_compared:
            self.wake()

    def wake(self) -> None:
        """Look, and tell the sessions that wait; once, however often this is called."""
        if self._idlers and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            await self.refresh()
        except FolderNotFoundError:
            pass
        except StoreError:
            return  # which has been logged; the next notice, or the next sweep, tries again
        finally:
            self._task = None
        for idler in self._idlers:
            idler.happened()


# --- in threads -----------------------------------------------------------------------------------


def _refreshed(
    index: Index,
    folder: int,
    *,
    look_at_it: bool,
    thorough: bool = False,
    first: bool = False,
    take: bool = False,
    since: int = -1,
) -> _Found:
    """Look at a folder.

    Args:
        index: the account's.
        folder: the folder's id.
        look_at_it: look into its directories too.
        thorough: compare cur/ even if its time has not changed.
        first: compare it unless its time proves that it has not changed.
        take: take what is recent.
        since: from where its messages are wanted; 0: all; -1: its sums are.
    """
    index.follow()  # another process may have made it again
    looked, taken = Looked(), range(0)
    try:
        if look_at_it:
            looked = look(index, folder, thorough=thorough, first=first)
        taken = _take_recent(index, folder) if take else range(0)
    except (OSError, sqlite3.Error) as error:
        if not cannot_write(error):
            raise
        # What the index knows can be read all the same; a later look finds the rest.
        logger.warning("%s: new mail cannot be taken over: %s", index.maildir.path, error)
    status: Status | None = None
    news: Changes | Loaded | None = None
    if since > 0 and not are_many(index, folder, since):
        news = changes(index, folder, since)
        if not news.complete:  # nobody knows what is gone: it is what is not there any more
            news = changes(index, folder, since, whole=True)
    elif since >= 0:
        news = loaded(index, folder, since)
    rows = index.query("SELECT id, name, uidvalidity, recent FROM folder WHERE id = ?", (folder,))
    if not rows:
        raise FolderNotFoundError("Mailbox has been deleted")
    *columns, recent = rows[0]
    row = FolderRow(*columns)
    if since < 0:
        status = folders.status(index, row)
    return _Found(row, recent, taken, looked.again, looked.moved, news, status)


def _take_recent(index: Index, folder: int) -> range:
    r"""Take what is ``\Recent``: nobody else does."""
    rows = index.query("SELECT recent < uidnext FROM folder WHERE id = ?", (folder,))
    if not rows or not rows[0][0] or index.read_only:
        return range(0)
    with index.locked(), index.transaction() as db:
        rows = db.execute("SELECT recent, uidnext FROM folder WHERE id = ?", (folder,)).fetchall()
        if not rows:
            return range(0)
        db.execute("UPDATE folder SET recent = uidnext WHERE id = ?", (folder,))
        return range(*rows[0])
