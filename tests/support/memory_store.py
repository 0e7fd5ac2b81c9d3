"""A store in memory: the least that `mail.store.interface` asks for, to serve IMAP over other data.

Rules of this file: one folder, INBOX, of messages that a program has; the methods do what the
interface says and nothing more. Each session has its own view.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastlisten.mail.store.interface import (
    NO_FLAGS,
    Appended,
    Changes,
    Copied,
    Facts,
    Flag,
    FolderNotFoundError,
    FolderRefusedError,
    Listed,
    MessageGoneError,
    MessageState,
    Status,
    Stored,
    StoreMode,
)

__all__ = ["MemoryAccount"]


@dataclass
class Message:
    """A message, and what it has now."""

    data: bytes
    date: int
    state: MessageState


class MemoryAccount:
    """Messages by UID; implements `interface.Account`."""

    def __init__(self, messages: Sequence[bytes] = ()) -> None:
        self.messages: dict[int, Message] = {}
        self.gone: dict[int, int] = {}  # UID -> modification sequence
        self.modseq = 1
        self.uidnext = 1
        self.watchers: list[Callable[[], None]] = []
        for data in messages:
            self.put(data, NO_FLAGS, (), None)

    def put(self, data: bytes, flags: Flag, keywords: Sequence[str], date: int | None) -> int:
        """Add a message; return its UID."""
        uid, self.uidnext, self.modseq = self.uidnext, self.uidnext + 1, self.modseq + 1
        when = int(time.time()) if date is None else date
        state = MessageState(uid, flags, tuple(sorted(keywords)), self.modseq)
        self.messages[uid] = Message(data, when, state)
        return uid

    def tell(self) -> None:
        """Call the watchers."""
        for callback in list(self.watchers):
            callback()

    @staticmethod
    def check(name: str) -> None:
        """Refuse other folders."""
        if name != "INBOX":
            raise FolderNotFoundError(f"Mailbox doesn't exist: {name}")

    async def folders(self) -> Sequence[Listed]:
        return [Listed("INBOX", subscribed=True)]

    async def create(self, name: str, role: str = "") -> None:
        raise FolderRefusedError("There is only one mailbox")

    async def delete(self, name: str) -> None:
        raise FolderRefusedError("There is only one mailbox")

    async def rename(self, old: str, new: str) -> None:
        raise FolderRefusedError("There is only one mailbox")

    async def subscribe(self, name: str, subscribed: bool) -> None:
        self.check(name)

    async def status(self, name: str) -> Status:
        self.check(name)
        states = [one.state.flags for one in self.messages.values()]
        return Status(
            messages=len(states),
            recent=0,
            unseen=sum(not flags & Flag.SEEN for flags in states),
            deleted=sum(bool(flags & Flag.DELETED) for flags in states),
            size=sum(len(one.data) for one in self.messages.values()),
            uidnext=self.uidnext,
            uidvalidity=1,
            highestmodseq=self.modseq,
            mailbox_id="F1",
        )

    async def open(self, name: str, *, read_only: bool = False) -> MemoryFolder:
        self.check(name)
        return MemoryFolder(self, read_only)

    async def append(self, name: str) -> MemoryAppend:
        self.check(name)
        return MemoryAppend(self)

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback)


class MemoryAppend:
    """Messages on their way; implements `interface.Append`."""

    def __init__(self, account: MemoryAccount) -> None:
        self.account = account
        self.staged: list[tuple[bytearray, Flag, Sequence[str], int | None]] = []

    async def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        self.staged.append((bytearray(), flags, keywords, date))

    async def add(self, data: bytes) -> None:
        self.staged[-1][0].extend(data)

    async def commit(self) -> Appended:
        uids = [
            self.account.put(bytes(data), flags, keywords, date)
            for data, flags, keywords, date in self.staged
        ]
        self.account.tell()
        return Appended(1, uids)

    async def abort(self) -> None:
        self.staged.clear()


class MemoryOctets:
    """Octets of a message; implements `interface.Octets`."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def close(self) -> None:
        pass


class MemoryFolder:
    """A session's view; implements `interface.Folder`."""

    name = "INBOX"
    uidvalidity = 1
    mailbox_id = "F1"

    def __init__(self, account: MemoryAccount, read_only: bool) -> None:
        self.account = account
        self.read_only = read_only
        self.first_recent = account.uidnext
        self.uidnext, self.highestmodseq = account.uidnext, account.modseq
        self.mine = list(account.messages)

    def uids(self) -> Sequence[int]:
        return self.mine

    def state(self, uid: int) -> MessageState:
        try:
            return self.account.messages[uid].state
        except KeyError:
            raise MessageGoneError(f"Message {uid} has been expunged") from None

    def keywords(self) -> Sequence[str]:
        states = [one.state for one in self.account.messages.values()]
        return sorted({word for state in states for word in state.keywords})

    async def sync(self, *, expunge: bool = True) -> Changes:
        found = await self.changes(self.highestmodseq)
        there = self.account.messages
        gone = [uid for uid in self.mine if uid not in there] if expunge else []
        self.mine = [uid for uid in self.mine if uid not in gone]
        arrived = [uid for uid in there if uid >= self.uidnext]
        self.mine += arrived
        changed = [one for one in (*found.arrived, *found.changed) if one.uid < self.uidnext]
        self.uidnext, self.highestmodseq = found.uidnext, found.cursor
        return Changes(
            found.cursor, found.uidnext, [there[uid].state for uid in arrived], changed, gone
        )

    async def changes(self, since: int) -> Changes:
        account = self.account
        states = [one.state for one in account.messages.values() if one.state.modseq > since]
        gone = [uid for uid, modseq in sorted(account.gone.items()) if modseq > since]
        return Changes(account.modseq, account.uidnext, (), states, gone)

    async def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> Stored:
        changed, modified = [], []
        self.account.modseq += 1
        for uid in uids:
            message = self.account.messages.get(uid)
            if message is None:
                continue
            state = message.state
            if unchanged_since is not None and state.modseq > unchanged_since:
                modified.append(uid)
                continue
            words = set(state.keywords)
            if mode is StoreMode.ADD:
                new = dataclasses.replace(state, flags=state.flags | flags)
                words |= set(keywords)
            elif mode is StoreMode.REMOVE:
                new = dataclasses.replace(state, flags=state.flags & ~flags)
                words -= set(keywords)
            else:
                new = dataclasses.replace(state, flags=flags)
                words = set(keywords)
            new = dataclasses.replace(new, keywords=tuple(sorted(words)))
            if new != state:
                message.state = dataclasses.replace(new, modseq=self.account.modseq)
                changed.append(message.state)
        self.account.tell()
        return Stored(changed, modified)

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        messages = self.account.messages
        gone = [
            uid
            for uid in (list(messages) if uids is None else uids)
            if uid in messages and messages[uid].state.flags & Flag.DELETED
        ]
        self.account.modseq += 1
        for uid in gone:
            del messages[uid]
            self.account.gone[uid] = self.account.modseq
        self.account.tell()
        return gone

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        self.account.check(target)
        sources = [uid for uid in uids if uid in self.account.messages]
        targets = []
        for uid in sources:
            it = self.account.messages[uid]
            targets.append(self.account.put(it.data, it.state.flags, it.state.keywords, it.date))
        self.account.tell()
        return Copied(1, sources, targets)

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        copied = await self.copy(uids, target)
        for uid in copied.sources:
            del self.account.messages[uid]
            self.account.gone[uid] = self.account.modseq
        return copied

    async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
        there = [(uid, self.account.messages[uid]) for uid in uids if uid in self.account.messages]
        return [Facts(uid, len(one.data), one.date, f"E{uid}") for uid, one in there]

    async def keep_structure(self, uid: int, structure: bytes) -> None:
        pass

    async def message(self, uid: int) -> MemoryOctets:
        self.state(uid)
        return MemoryOctets(self.account.messages[uid].data)

    def close(self) -> None:
        pass
