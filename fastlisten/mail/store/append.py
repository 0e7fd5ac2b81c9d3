"""APPEND: messages that a client sends, one or several at once.

Rules of this file: blocking, for one thread at a time. Octets go into tmp/ as they come; nothing is
locked until all are there and synced. What a crash leaves in tmp/ is removed by `Spool.clean`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastlisten.mail.accounts.quota import NO_QUOTA
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.files import inspect
from fastlisten.mail.store.flags import check_keywords
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import NO_FLAGS, Appended, Flag, StoreFullError, Usage
from fastlisten.mail.store.letters import SYSTEM
from fastlisten.mail.store.publish import box_to_write, publish, unstage
from fastlisten.mail.store.rows import NewMessage
from fastlisten.mail.store.usage import OVER_QUOTA, catch_up, fits, sums
from fastlisten.private_files import open_new, write_all

__all__ = ["Appending"]


class Appending:
    """Messages on their way into a folder; methods as `interface.Append` has them.

    Args:
        index: the account's.
        folder: the folder's id.

    Raises:
        FolderNotFoundError: there is no such folder.
    """

    __slots__ = (
        "_bits",
        "_box",
        "_date",
        "_fd",
        "_folder",
        "_index",
        "_keywords",
        "_name",
        "_octets",
        "_staged",
    )

    def __init__(self, index: Index, folder: int) -> None:
        self._index = index
        self._folder = folder
        self._box = box_to_write(index, folder)
        self._staged: list[NewMessage] = []
        self._fd = -1
        self._name = ""
        self._octets = 0  # of all messages so far
        self._bits = 0
        self._keywords = ""
        self._date: int | None = None

    def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        """Begin a message.

        Raises:
            OSError: the one before it, or this one, cannot be written.
            StoreFullError: it exceeds the quota.
            ValueError: something is no keyword.
        """
        check_keywords(keywords)
        self._end()
        self._check_quota()
        self._bits = int(flags) & SYSTEM
        self._keywords = " ".join(keywords)
        self._date = date
        self._name = unique_name()
        path = f"{self._box.tmp}/{self._name}"
        try:
            self._fd = open_new(path)
        except FileNotFoundError:
            self._box.prepare()
            self._fd = open_new(path)

    def add(self, data: bytes) -> None:
        """Append octets to the message.

        Raises:
            OSError: they cannot be written.
            StoreFullError: they exceed the quota.
        """
        self._octets += len(data)
        self._check_quota()
        write_all(self._fd, data)

    def _check_quota(self) -> None:
        """Refuse what will not fit: whether it does fit is certain only when it becomes visible.

        Otherwise a client could fill the disk with messages of which none becomes visible.
        """
        quota = self._index.quota()
        if quota == NO_QUOTA:
            return
        all_of_it = Usage(self._octets, len(self._staged) + 1)
        if fits(sums(self._index), quota, all_of_it):
            return
        catch_up(self._index)  # something may have been removed
        if not fits(sums(self._index), quota, all_of_it):
            raise StoreFullError(OVER_QUOTA)

    def _end(self) -> None:
        """Make the message that was begun durable."""
        if self._fd < 0:
            return
        path = f"{self._box.tmp}/{self._name}"
        if self._date is not None:
            os.utime(self._fd, (self._date, self._date))
        os.fsync(self._fd)
        fd, self._fd = self._fd, -1
        os.close(fd)
        inspected = inspect(path)
        assert inspected is not None, path
        self._staged.append(NewMessage(self._name, self._bits, inspected, self._keywords))

    def commit(self) -> Appended:
        """Make all of them visible.

        Raises:
            FolderNotFoundError: the folder has been deleted.
            OSError: they cannot be made durable; none is visible.
        """
        try:
            self._end()
            appended = publish(self._index, self._folder, lambda: self._staged)
            self._staged = []
        finally:
            self.abort()
        return appended

    def abort(self) -> None:
        """Drop what has not been committed."""
        names = [message.name for message in self._staged]
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
            names.append(self._name)
        self._staged = []
        unstage(self._box, names)
