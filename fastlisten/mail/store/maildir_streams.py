"""Messages on their way in, and octets on their way out, of a Maildir.

Rules of this file: coroutines around append.py and reading.py, which block.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.mail.store import reading
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.index_use import IndexUse
from fastlisten.mail.store.interface import NO_FLAGS, Appended, Flag

__all__ = ["MaildirAppend", "MaildirOctets"]


class MaildirAppend:
    """Messages on their way; implements `interface.Append`."""

    def __init__(self, use: IndexUse, appending: Appending) -> None:
        self._use = use
        self._appending = appending
        use.pin()  # until it has ended
        self._ended = False

    async def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        """Begin a message."""
        await self._use.run(self._appending.begin, flags, keywords, date)

    async def add(self, data: bytes) -> None:
        """Append octets to the message."""
        await self._use.run(self._appending.add, data)

    async def commit(self) -> Appended:
        """Make all of them durable and visible."""
        try:
            appended = await self._use.run(self._appending.commit)
        finally:
            self._end()
        self._use.changed()
        return appended

    async def abort(self) -> None:
        """Drop all of them; after `commit`, do nothing."""
        try:
            await self._use.run(self._appending.abort)
        finally:
            self._end()

    def _end(self) -> None:
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
