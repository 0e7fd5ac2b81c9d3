"""Messages on their way in, and octets on their way out, of a Maildir.

Rules of this file: coroutines around append.py and reading.py, which block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastlisten.mail.store import reading
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.flags import check_keywords
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.index_use import IndexUse
from fastlisten.mail.store.interface import NO_FLAGS, Appended, Flag

__all__ = ["BUFFERED", "MaildirAppend", "MaildirOctets"]


#: Octets of messages that wait in memory for the next call of a thread.
BUFFERED = 65_536


class MaildirAppend:
    """Messages on their way; implements `interface.Append`.

    A thread is asked when there is enough to do, which for most messages is once. What fails
    therefore shows later than where it was asked for, at the latest in `commit`.

    Args:
        use: the account's index.
        make: finds the folder; called with the index in a thread.
    """

    def __init__(self, use: IndexUse, make: Callable[[Index], Appending]) -> None:
        self._use = use
        self._make = make
        self._appending: Appending | None = None
        self._todo: list[Callable[[Appending], object]] = []
        self._buffered = 0
        use.pin()  # until it has ended
        self._ended = False

    async def prepare(self) -> None:
        """Find the folder now.

        Raises:
            FolderNotFoundError: there is none; it has ended.
        """
        try:
            await self._use.use(self._do, [])
        except BaseException:
            self._end()
            raise

    def _do(self, index: Index, todo: Sequence[Callable[[Appending], object]]) -> Appending:
        """Do what waits, in a thread."""
        if self._appending is None:
            self._appending = self._make(index)
        for one in todo:
            one(self._appending)
        return self._appending

    def _taken(self) -> list[Callable[[Appending], object]]:
        todo, self._todo, self._buffered = self._todo, [], 0
        return todo

    async def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        """Begin a message."""
        check_keywords(keywords)
        self._todo.append(lambda appending: appending.begin(flags, keywords, date))

    async def add(self, data: bytes) -> None:
        """Append octets to the message."""
        self._todo.append(lambda appending: appending.add(data))
        self._buffered += len(data)
        if self._buffered >= BUFFERED:
            await self._use.use(self._do, self._taken())

    async def commit(self) -> Appended:
        """Make all of them durable and visible."""
        try:
            appended = await self._use.use(self._commit, self._taken())
        finally:
            self._end()
        self._use.changed()
        return appended

    def _commit(self, index: Index, todo: Sequence[Callable[[Appending], object]]) -> Appended:
        try:
            return self._do(index, todo).commit()
        except BaseException:
            if self._appending is not None:
                self._appending.abort()
            raise

    async def abort(self) -> None:
        """Drop all of them; after `commit`, do nothing."""
        try:
            if self._appending is not None:
                await self._use.run(self._appending.abort)
        finally:
            self._end()

    def _end(self) -> None:
        self._todo.clear()
        if not self._ended:
            self._ended = True
            self._use.unpin()


class MaildirOctets:
    """The octets of a message; implements `interface.Octets`."""

    def __init__(self, use: IndexUse, message: reading.OpenMessage) -> None:
        self._use = use
        self._message = message

    @property
    def size(self) -> int:
        """How many there are."""
        return self._message.size

    async def read(self, offset: int, size: int) -> bytes:
        """Return octets; on the loop if they are in memory, because a thread costs 50 µs."""
        size = max(0, min(size, self.size - offset))
        found = self._message.read_at_once(offset, size)
        if found is not None:
            return found
        return await self._use.run(self._message.read, offset, size)

    def close(self) -> None:
        """Close the file."""
        self._message.close()
