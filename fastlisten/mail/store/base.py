"""A store for mail that a program has elsewhere: it says which messages there are, and reads them.

    BaseAccount ── add_folder ──> Messages      what all sessions of the process share
         └───────── open ───────> BaseFolder    one session's view of it

Rules of this file: all of `interface` with the least that a program has to know. A subclass of
`BaseAccount` adds folders and messages, and overrides `content`. Whatever changes mail for good is
refused unless it overrides that too. UIDs are the program's, so that they can stay the same; flags,
keywords and modification sequences live in memory. Several workers do not share them.
"""

from __future__ import annotations

import hashlib
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastlisten.mail.store.folder_state import columns_of
from fastlisten.mail.store.interface import (
    NO_FLAGS,
    Append,
    Changes,
    Columns,
    Copied,
    FactColumns,
    Facts,
    Flag,
    FolderExistsError,
    FolderNotFoundError,
    FolderRefusedError,
    Listed,
    MessageGoneError,
    MessageState,
    Octets,
    QuotaStatus,
    Status,
    Stored,
    StoreMode,
    Usage,
)

__all__ = ["BaseAccount", "BaseFolder", "BytesOctets", "Messages"]

_LINE_END = re.compile(rb"\r?\n")


def _now() -> int:
    """Return the clock in microseconds, so that numbers grow over restarts too."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class _Message:
    state: MessageState
    date: int
    size: int | None


class Messages:
    """The messages of a folder, with what they have now.

    Attributes:
        name: the folder's.
        uidvalidity: the same as long as UIDs mean the same messages.
        read_only: no session can change flags.
        role: its special use (RFC 6154), as in ``Archive``; empty if none.
        uidnext: larger than every UID so far.
        modseq: that of the last change.
        mailbox_id: MAILBOXID (RFC 8474).
    """

    def __init__(self, name: str, uidvalidity: int, *, read_only: bool, role: str) -> None:
        self.name = name
        self.uidvalidity = uidvalidity
        self.read_only = read_only
        self.role = role
        self.uidnext = 1
        self.mailbox_id = "F" + hashlib.sha256(name.encode()).hexdigest()[:16]
        # Flags and what is gone are known from here on; before that there was another process.
        self.since = self.modseq = _now()
        self._messages: dict[int, _Message] = {}
        self._gone: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def uids(self) -> list[int]:
        """Return all UIDs, ascending."""
        return list(self._messages)

    def state(self, uid: int) -> MessageState:
        """Return what a message has.

        Raises:
            MessageGoneError: there is no such message.
        """
        return self._message(uid).state

    def states(self) -> list[MessageState]:
        """Return what all messages have."""
        return [one.state for one in self._messages.values()]

    def _message(self, uid: int) -> _Message:
        try:
            return self._messages[uid]
        except KeyError:
            raise MessageGoneError(f"Message {uid} has been expunged") from None

    def step(self) -> int:
        """Return a new modification sequence."""
        self.modseq = max(self.modseq + 1, _now())
        return self.modseq

    def add(
        self,
        uid: int = 0,
        *,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        date: int | None = None,
        size: int | None = None,
    ) -> int:
        """Add a message; return its UID.

        Args:
            uid: above all before it; the next one if 0.
            flags: the system flags that it has.
            keywords: the keywords that it has.
            date: INTERNALDATE in seconds since the epoch; now if None.
            size: octets with CRLFs, if they are known; the content is read to count them if None.

        Raises:
            ValueError: the UID is not above all before it.
        """
        uid = uid or self.uidnext
        if not self.uidnext <= uid < 1 << 32:
            raise ValueError(f"UID {uid} of {self.name} is not in order")
        state = MessageState(uid, flags, tuple(sorted(keywords)), self.step())
        self._messages[uid] = _Message(state, int(time.time()) if date is None else date, size)
        self.uidnext = uid + 1
        return uid

    def remove(self, uids: Iterable[int]) -> list[int]:
        """Remove messages; return the UIDs of those that were there."""
        gone = [uid for uid in uids if self._messages.pop(uid, None) is not None]
        if gone:
            self._gone.update(dict.fromkeys(gone, self.step()))
        return gone

    def change(
        self, uid: int, mode: StoreMode, flags: Flag, keywords: Sequence[str]
    ) -> MessageState | None:
        """Change flags and keywords; return what the message has then, None if nothing changed."""
        message = self._message(uid)
        old = message.state
        words = {word.lower(): word for word in old.keywords}
        given = {word.lower(): words.get(word.lower(), word) for word in keywords}
        if mode is StoreMode.ADD:
            flags, words = old.flags | flags, given | words
        elif mode is StoreMode.REMOVE:
            flags, words = old.flags & ~flags, {k: v for k, v in words.items() if k not in given}
        else:
            words = given
        spelt = tuple(sorted(words.values()))
        if (flags, spelt) == (old.flags, old.keywords):
            return None
        message.state = MessageState(uid, flags, spelt, self.step())
        return message.state

    def changes(self, since: int) -> Changes:
        """Return what happened after a modification sequence; all that changed as `changed`."""
        complete = since >= self.since or since == 0
        return Changes(
            self.modseq,
            self.uidnext,
            (),
            [one for one in self.states() if one.modseq > since],
            sorted(uid for uid, modseq in self._gone.items() if modseq > since) if complete else (),
            complete,
        )

    def date(self, uid: int) -> int:
        """Return a message's INTERNALDATE."""
        return self._message(uid).date

    def size(self, uid: int) -> int | None:
        """Return a message's size, if it is known."""
        return self._message(uid).size

    def know_size(self, uid: int, size: int) -> None:
        """Remember a message's size, if it is still there."""
        if uid in self._messages:
            self._messages[uid].size = size


class BytesOctets:
    """Octets in memory; implements `interface.Octets`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._data)

    async def read(self, offset: int, size: int) -> bytes:
        """Return some of them."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Do nothing."""


class BaseAccount:
    """An account whose mail lies elsewhere; implements `interface.Account`.

    Attributes:
        mailboxes: its folders, by name.
        watchers: what `notify` calls.
    """

    def __init__(self) -> None:
        self.mailboxes: dict[str, Messages] = {}
        self.watchers: dict[object, Callable[[], None]] = {}

    def add_folder(
        self, name: str, uidvalidity: int, *, read_only: bool = False, role: str = ""
    ) -> Messages:
        """Add a folder, to which messages are to be added.

        Args:
            name: Unicode, with ``/`` between levels. There has to be an ``INBOX``.
            uidvalidity: 1 to 2^32 - 1; a larger one when UIDs have another meaning than before.
            read_only: no session can change flags.
            role: its special use (RFC 6154), as in ``Archive``.
        """
        folder = Messages(name, uidvalidity, read_only=read_only, role=role)
        self.mailboxes[name] = folder
        return folder

    def notify(self) -> None:
        """Have sessions look; to be called on the loop after the program has changed something."""
        for callback in list(self.watchers.values()):
            callback()

    async def content(self, name: str, uid: int) -> bytes:
        """Return a message; its lines may end with LF or with CRLF. A subclass overrides this.

        Raises:
            MessageGoneError: it is there no more.
        """
        raise NotImplementedError

    def _mailbox(self, name: str) -> Messages:
        try:
            return self.mailboxes[name]
        except KeyError:
            raise FolderNotFoundError(f"Mailbox doesn't exist: {name}") from None

    # --- interface.Account --------------------------------------------------------------------

    async def folders(self) -> Sequence[Listed]:
        """Return all folders; all are subscribed."""
        return [
            Listed(name, subscribed=True, role=self.mailboxes[name].role)
            for name in sorted(self.mailboxes)
        ]

    async def create(self, name: str, role: str = "") -> None:
        """Refuse."""
        if name in self.mailboxes:
            raise FolderExistsError("Mailbox already exists")
        raise FolderRefusedError("Mailboxes cannot be created here")

    async def delete(self, name: str) -> None:
        """Refuse."""
        self._mailbox(name)
        raise FolderRefusedError("Mailboxes cannot be deleted here")

    async def rename(self, old: str, new: str) -> None:
        """Refuse."""
        self._mailbox(old)
        raise FolderRefusedError("Mailboxes cannot be renamed here")

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """Refuse everything but what is so."""
        self._mailbox(name)
        if not subscribed:
            raise FolderRefusedError("All mailboxes are subscribed here")

    async def status(self, name: str) -> Status:
        """Count the messages of a folder."""
        folder = self._mailbox(name)
        states = folder.states()
        return Status(
            messages=len(states),
            recent=0,
            unseen=sum(not one.flags & Flag.SEEN for one in states),
            deleted=sum(bool(one.flags & Flag.DELETED) for one in states),
            size=sum([await self.size(name, one.uid) for one in states]),
            uidnext=folder.uidnext,
            uidvalidity=folder.uidvalidity,
            highestmodseq=folder.modseq,
            mailbox_id=folder.mailbox_id,
        )

    async def deleted_size(self, name: str) -> int:
        r"""Count the octets of the messages that are ``\Deleted``."""
        states = self._mailbox(name).states()
        return sum([await self.size(name, one.uid) for one in states if one.flags & Flag.DELETED])

    async def quota(self) -> QuotaStatus:
        """Return that there is no limit; what there is, is not counted."""
        return QuotaStatus(Usage(0, 0))

    async def open(self, name: str, *, read_only: bool = False) -> BaseFolder:
        """Open a folder."""
        return BaseFolder(self, self._mailbox(name), read_only=read_only)

    async def append(self, name: str) -> Append:
        """Refuse."""
        self._mailbox(name)
        raise FolderRefusedError("Messages cannot be added here")

    # --- what folders need --------------------------------------------------------------------

    async def octets(self, name: str, uid: int) -> bytes:
        """Return a message as it is served, with CRLFs."""
        data = await self.content(name, uid)
        if data.count(b"\r\n") == data.count(b"\n"):
            return data
        return _LINE_END.sub(b"\r\n", data)

    async def size(self, name: str, uid: int) -> int:
        """Return a message's size as it is served; 0 if it is gone."""
        folder = self.mailboxes[name]
        try:
            size = folder.size(uid)
            if size is None:
                size = len(await self.octets(name, uid))
                folder.know_size(uid, size)
        except MessageGoneError:
            return 0
        return size


class BaseFolder:
    """One session's view of a folder; implements `interface.Folder`."""

    def __init__(self, account: BaseAccount, messages: Messages, *, read_only: bool) -> None:
        self.account = account
        self.messages = messages
        self.name = messages.name
        self.read_only = read_only or messages.read_only
        self.uidvalidity = messages.uidvalidity
        self.mailbox_id = messages.mailbox_id
        self.uidnext = messages.uidnext
        self.recent: Sequence[range] = ()
        self.highestmodseq = messages.modseq
        self._uids = messages.uids()

    def uids(self) -> Sequence[int]:
        """Return all UIDs that the session has been told."""
        return self._uids

    def state(self, uid: int) -> MessageState:
        """Return what a message has."""
        return self.messages.state(uid)

    def columns(self, places: range) -> Columns:
        """Return what many messages have."""
        return columns_of(self._uids[places.start : places.stop], self.state)

    def keywords(self) -> Sequence[str]:
        """Return all keywords in the folder, sorted."""
        return sorted({word for one in self.messages.states() for word in one.keywords})

    def first_unseen(self) -> int:
        r"""Return the number of the first message that is not ``\Seen``; 0 if there is none."""
        there = (one.uid for one in self.messages.states() if not one.flags & Flag.SEEN)
        uid = next(there, self.uidnext)
        return bisect_left(self._uids, uid) + 1 if uid < self.uidnext else 0

    def is_current(self) -> bool:
        """Return whether nothing has happened since the last `sync`."""
        return (
            self.highestmodseq == self.messages.modseq
            and len(self._uids) == len(self.messages)
            and self.account.mailboxes.get(self.name) is self.messages
        )

    async def sync(self, *, expunge: bool = True) -> Changes:
        """Take over what has happened since."""
        if self.account.mailboxes.get(self.name) is not self.messages:
            raise FolderNotFoundError("Mailbox has been deleted")
        there = self.messages.uids()
        before, self.uidnext = self.uidnext, self.messages.uidnext
        found = self.messages.changes(self.highestmodseq)
        self.highestmodseq = found.cursor
        arrived = there[bisect_left(there, before) :]
        gone: list[int] = []
        if expunge:
            those = set(there)
            gone = [uid for uid in self._uids if uid not in those]
            self._uids = there
        else:
            self._uids = [*self._uids, *arrived]
        return Changes(
            found.cursor,
            found.uidnext,
            [self.messages.state(uid) for uid in arrived],
            [one for one in found.changed if one.uid < before],
            gone,
        )

    async def changes(self, since: int) -> Changes:
        """Return what happened after a modification sequence."""
        return self.messages.changes(since)

    async def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags and keywords, in memory, for all sessions of the account."""
        changed, modified = [], []
        for uid in uids:
            try:
                modseq = self.messages.state(uid).modseq
            except MessageGoneError:
                continue
            if unchanged_since is not None and modseq > unchanged_since:
                modified.append(uid)
                continue
            state = self.messages.change(uid, mode, flags, keywords)
            if state is not None:
                changed.append(state)
        if changed:
            self.account.notify()
        return Stored(changed, modified)

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        r"""Refuse, if a message is ``\Deleted``."""
        those = None if uids is None else set(uids)
        if any(
            one.flags & Flag.DELETED and (those is None or one.uid in those)
            for one in self.messages.states()
        ):
            raise FolderRefusedError("Messages cannot be deleted here")
        return ()

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        """Refuse."""
        await self.account.append(target)
        raise FolderRefusedError("Messages cannot be copied here")

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        """Refuse."""
        await self.account.append(target)
        raise FolderRefusedError("Messages cannot be moved here")

    async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
        """Return what never changes about messages."""
        found = []
        for uid in uids:
            size = await self.account.size(self.name, uid)
            try:
                date = self.messages.date(uid)
            except MessageGoneError:
                continue
            found.append(Facts(uid, size, date, f"E{self.mailbox_id}-{self.uidvalidity}-{uid}"))
        return found

    async def fact_columns(self) -> FactColumns | None:
        """Leave it to `facts`."""
        return None

    async def keep_structures(self, structures: Mapping[int, bytes]) -> None:
        """Decline."""

    async def message(self, uid: int) -> Octets:
        """Return the octets of a message."""
        self.messages.state(uid)
        return BytesOctets(await self.account.octets(self.name, uid))

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Call back with `notify`; None: no more."""
        if callback is None:
            self.account.watchers.pop(self, None)
        else:
            self.account.watchers[self] = callback

    def close(self) -> None:
        """Call back no more."""
        self.watch(None)
