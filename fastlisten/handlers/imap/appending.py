"""APPEND: messages that the client sends, on their way to the store (RFC 3501 6.3.11, RFC 3502).

Rules of this file: one command. All of its messages come in, or none. While octets are written the
session takes no more. What fails while a message comes is said at its end, because a client can be
answered only there.
"""

from __future__ import annotations

from fastlisten.handlers.imap.connection_interface import Connection, Services
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import AppendMessage, AppendOctets
from fastlisten.handlers.imap.message_flags import split_flags
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.mail.store.interface import Account, Append, StoreError

__all__ = ["Appending"]


class Appending:
    """One APPEND.

    Args:
        account: whose mail it is.
        connection: the client's.
        services: run what must be done though the client has gone.
    """

    __slots__ = ("_account", "_append", "_connection", "_error", "_services", "_sizes")

    def __init__(self, account: Account, connection: Connection, services: Services) -> None:
        self._account = account
        self._connection = connection
        self._services = services
        self._append: Append | None = None
        self._error: StoreError | None = None
        self._sizes: list[int] = []

    async def begin(self, event: AppendMessage) -> None:
        """Accept a message.

        Raises:
            StoreError: it cannot be taken, or one before it could not be stored.
            Rejected: it has a flag that cannot be stored.
        """
        self._raise()
        if self._append is None:
            self._append = await self._account.append(event.mailbox)
        flags, keywords = split_flags(event.flags)
        date = None if event.date is None else int(event.date.timestamp())
        try:
            await self._append.begin(flags, keywords, date)
        except ValueError as error:
            raise Rejected("Invalid flag", codes.CANNOT) from error
        self._sizes.append(event.size)
        self._connection.engine.accept()

    async def add(self, event: AppendOctets) -> None:
        """Store octets of the message; after an error do nothing."""
        if self._error is None and self._append is not None:
            try:
                await self._append.add(event.data)
            except StoreError as error:
                self._error = error

    async def end(self) -> bytes:
        """Store the messages; return the response code for that.

        Raises:
            StoreError: they cannot be stored.
        """
        self._raise()
        assert self._append is not None
        appended = await self._append.commit()
        self._append = None
        for size in self._sizes:
            self._services.session_log.counts.message("accepted", size)
        return codes.append_uid(appended.uidvalidity, appended.uids)

    def drop(self) -> None:
        """Drop all messages, unless `end` has stored them."""
        if self._append is not None:
            self._services.run_to_its_end(self._append.abort())
            self._append = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
