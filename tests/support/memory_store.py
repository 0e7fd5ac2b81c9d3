"""A store in memory that can do everything but folders: what `mail.store.base` refuses, allowed.

Rules of this file: one folder, INBOX, of messages that a test has.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.mail.store.base import BaseAccount, BaseFolder
from fastlisten.mail.store.interface import NO_FLAGS, Appended, Copied, Flag, Listed

__all__ = ["MemoryAccount", "MemoryFolder"]


class MemoryAccount(BaseAccount):
    """Messages by UID; implements `interface.Account`."""

    def __init__(self, messages: Sequence[bytes] = ()) -> None:
        super().__init__()
        self.inbox = self.add_folder("INBOX", 1)
        self.data: dict[int, bytes] = {}
        for data in messages:
            self.put(data, NO_FLAGS, (), None)

    def put(self, data: bytes, flags: Flag, keywords: Sequence[str], date: int | None) -> int:
        """Add a message; return its UID."""
        uid = self.inbox.add(flags=flags, keywords=keywords, date=date)
        self.data[uid] = data
        return uid

    async def content(self, name: str, uid: int) -> bytes:
        return self.data[uid]

    async def folders(self) -> Sequence[Listed]:
        return [Listed("INBOX", subscribed=True)]

    async def open(self, name: str, *, read_only: bool = False) -> BaseFolder:
        return MemoryFolder(self, self._mailbox(name), read_only=read_only)

    async def append(self, name: str) -> MemoryAppend:
        self._mailbox(name)
        return MemoryAppend(self)


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
        self.account.notify()
        return Appended(1, uids)

    async def abort(self) -> None:
        self.staged.clear()


class MemoryFolder(BaseFolder):
    """A session's view; implements `interface.Folder`."""

    account: MemoryAccount

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        there = self.messages.uids() if uids is None else uids
        deleted = {one.uid for one in self.messages.states() if one.flags & Flag.DELETED}
        gone = self.messages.remove(uid for uid in there if uid in deleted)
        self.account.notify()
        return gone

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        await self.account.status(target)
        states = {one.uid: one for one in self.messages.states()}
        sources = [uid for uid in uids if uid in states]
        targets = []
        for uid in sources:
            state, date = states[uid], self.messages.date(uid)
            data = self.account.data[uid]
            targets.append(self.account.put(data, state.flags, state.keywords, date))
        self.account.notify()
        return Copied(1, sources, targets)

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        copied = await self.copy(uids, target)
        self.messages.remove(copied.sources)
        self.account.notify()
        return copied
