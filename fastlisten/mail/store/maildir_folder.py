"""A folder of a Maildir as one session sees it.

Rules of this file: what is asked of threads, and what is answered from memory; what the sessions of
a process share is in shared_folder.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from fastlisten.mail.store import copying, folders, reading
from fastlisten.mail.store.changes import changes
from fastlisten.mail.store.expunge import expunge as expunge_messages
from fastlisten.mail.store.flags import store as store_flags
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.index_use import IndexUse
from fastlisten.mail.store.interface import (
    NO_FLAGS,
    Changes,
    Columns,
    Copied,
    FactColumns,
    Facts,
    Flag,
    MessageState,
    Stored,
    StoreMode,
)
from fastlisten.mail.store.known_files import Key, open_known
from fastlisten.mail.store.maildir_streams import MaildirOctets
from fastlisten.mail.store.shared_folder import Idler, SharedFolder

__all__ = ["MaildirFolder"]


#: Of more messages than that, which is a search, the files are not remembered: they would take the
#: place of those that somebody reads.
_MOST_TO_KNOW = 256


class MaildirFolder(Idler):
    """An open folder; implements `interface.Folder`."""

    __slots__ = ("_callback", "_closed", "_shared", "_use", "_view", "name", "read_only", "recent")

    def __init__(self, use: IndexUse, shared: SharedFolder, *, read_only: bool) -> None:
        """Open a folder that has just been refreshed, and that counts this session."""
        self.name = shared.row.name
        self.read_only = read_only
        self._use = use
        self._shared = shared
        self._view = shared.state.view()
        self.recent: Sequence[range] = shared.recent_for(self._view, 1, read_only=read_only)
        self._callback: Callable[[], None] | None = None
        self._closed = False

    @property
    def uidvalidity(self) -> int:
        """Its UIDVALIDITY."""
        return self._shared.row.uidvalidity

    @property
    def uidnext(self) -> int:
        """Larger than every UID so far."""
        return self._view.uidnext

    @property
    def highestmodseq(self) -> int:
        """The modification sequence of the last change."""
        return self._view.cursor

    @property
    def mailbox_id(self) -> str:
        """MAILBOXID."""
        return f"F{self._shared.row.id}"

    @property
    def _id(self) -> int:
        return self._shared.row.id

    def uids(self) -> Sequence[int]:
        """Return all UIDs."""
        return self._view.uids()

    def state(self, uid: int) -> MessageState:
        """Return what a message has."""
        return self._view.state.message(uid)

    def columns(self, places: range) -> Columns:
        """Return what many messages have."""
        return self._view.columns(places)

    def keywords(self) -> Sequence[str]:
        """Return all keywords in the folder, sorted."""
        return self._view.state.all_keywords()

    def first_unseen(self) -> int:
        r"""Return the number of the first message that is not ``\Seen``; 0 if there is none."""
        uid = self._view.state.first_unseen()
        uids = self.uids()
        return bisect_left(uids, uid) + 1 if uid and uid < self._view.uidnext else 0

    # --- what happens -------------------------------------------------------------------------

    def is_current(self) -> bool:
        """Return whether `sync` would return nothing."""
        self._shared.poll()
        return self._shared.is_current() and self._view.is_current()

    async def sync(self, *, expunge: bool = True) -> Changes:
        """Take over what has happened since, and return it."""
        shared, view = self._shared, self._view
        await shared.refresh()
        before = view.uidnext
        if view.is_slow():
            found = await view.advance_slowly(expunge=expunge)
        else:
            found = view.advance(expunge=expunge)
        if found.arrived:
            self.recent = _merged(
                self.recent, shared.recent_for(view, before, read_only=self.read_only)
            )
        return found

    async def changes(self, since: int) -> Changes:
        """Return what happened after a modification sequence."""
        return await self._use.use(changes, self._id, since)

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Call back after changes; None: no more."""
        self._callback = callback
        if callback is None:
            self._shared.remove_idler(self)
        else:
            self._shared.add_idler(self)

    def happened(self) -> None:
        """Call back, if the session has not been told everything (`Idler`)."""
        if self._callback is not None and not (
            self._view.is_current() and self._shared.is_current()
        ):
            self._callback()

    # --- changes ------------------------------------------------------------------------------

    async def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags and keywords."""
        stored = await self._use.use(
            store_flags, self._id, uids, mode, flags, keywords, unchanged_since
        )
        self._use.changed()
        return stored

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        r"""Remove messages that are ``\Deleted``."""
        gone = await self._use.use(expunge_messages, self._id, uids)
        self._use.changed()
        return gone

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        """Copy messages into a folder."""
        return await self._transfer(copying.copy, uids, target)

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        """Move messages into another folder."""
        return await self._transfer(copying.move, uids, target)

    async def _transfer(
        self,
        work: Callable[[Index, int, Sequence[int], int], Copied],
        uids: Sequence[int],
        target: str,
    ) -> Copied:
        there = await self._use.use(folders.find, target)
        copied = await self._use.use(work, self._id, uids, there.id)
        self._use.changed()
        return copied

    # --- messages -----------------------------------------------------------------------------

    def _key(self, uid: int) -> Key:
        row = self._shared.row
        return self._use.root, row.id, row.uidvalidity, uid

    async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
        """Return what never changes about messages."""
        if len(uids) > _MOST_TO_KNOW:
            return await self._use.use(reading.facts, self._id, uids)
        files = self._use.resources.files
        found, unknown = [], []
        for uid in uids:
            known = files.get(self._key(uid))
            if known is None or not self._view.state.has(uid):
                unknown.append(uid)
            else:
                found.append(known.facts)
        if not unknown:
            return found
        for known in await self._use.use(reading.known_files, self._id, unknown):
            files.put(self._key(known.facts.uid), known)
            found.append(known.facts)
        found.sort(key=lambda one: one.uid)
        return found

    async def fact_columns(self) -> FactColumns | None:
        """Return facts of the messages."""
        return await self._shared.fact_columns()

    async def keep_structures(self, structures: Mapping[int, bytes]) -> None:
        """Keep the structures of messages with them."""
        for uid in structures:
            self._use.resources.files.forget(self._key(uid))
        await self._use.use(reading.keep_structures, self._id, structures)

    async def message(self, uid: int) -> MaildirOctets:
        """Return the octets of a message; on the loop if its file is known."""
        files, key = self._use.resources.files, self._key(uid)
        known = files.get(key) if self._view.state.has(uid) else None
        if known is not None:
            fd = open_known(known)
            if fd >= 0:
                it = known.inspected
                return MaildirOctets(self._use, reading.OpenMessage(fd, it.size, lf=bool(it.eol)))
            files.forget(key)
        message, known = await self._use.use(reading.open_message, self._id, uid)
        if known is not None:
            files.put(key, known)
        return MaildirOctets(self._use, message)

    def close(self) -> None:
        """Give back what is held for it."""
        self.watch(None)
        if not self._closed:
            self._closed = True
            self._view.state.leave(self._view)
            self._shared.leave(read_only=self.read_only)


def _merged(ranges: Sequence[range], more: Sequence[range]) -> Sequence[range]:
    """Return ranges in their order, those that follow on one another as one."""
    merged = list(ranges)
    for one in more:
        if merged and merged[-1].stop == one.start:
            merged[-1] = range(merged[-1].start, one.stop)
        else:
            merged.append(one)
    return tuple(merged)
