"""Maildir++: the directories of one mailbox, its folders, and the messages in them.

Rules of this file: blocking system calls, to be run in a worker thread; no knowledge of any
protocol. How a message gets in is in delivery/staged_message.py. Several processes, and other
people's programs, may read, move and deliver at the same time: there are no locks, every change is
one rename(2), and if a file is gone, look where it has been moved to.

    new/NAME            delivered, seen by no reader
    cur/NAME:2,FLAGS    taken over by a reader; FLAGS are letters in order: D F P R S T, a-z
    .Folder.Sub/        another maildir, with the file maildirfolder in it

Format: https://cr.yp.to/proto/maildir.html and https://www.courier-mta.org/maildir.html;
names as Dovecot and Courier write them.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastlisten.mail.maildir.folder_names import directory_of, folder_of
from fastlisten.mail.maildir.spool import Spool, make_directories, unique_name

__all__ = ["Maildir", "Message", "unique_name"]

#: Between a message's name and its flags.
_INFO = ":2,"

#: How often directories are read again because something changes in them.
_LOOKS = 8

#: Seconds for which a directory's mtime may hide another change: the kernel's tick of at most 10
#: ms, with a margin.
_TICK = 0.02

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a maildir, as it was found.

    Attributes:
        name: identifies it as long as it exists, wherever it is moved.
        flags: letters in alphabetical order, ``""`` for a message in new/.
        path: where it was found.
        new: no reader has taken it over yet.
    """

    name: str
    flags: str
    path: str
    new: bool


class Maildir(Spool):
    """One maildir: a spool from which messages are renamed into new/; an account's, or a folder.

    Attributes:
        new: where messages are that no reader has taken over yet.
        cur: where the others are.
    """

    __slots__ = ("cur", "new")

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.new = f"{path}/new"
        self.cur = f"{path}/cur"

    def prepare(self) -> None:
        """Make its directories, and those above it, durable and for the owner alone.

        tmp/ comes last, so that where it exists the others do.
        """
        make_directories(self.path, ("cur", "new"))
        if os.path.basename(self.path).startswith("."):  # no account's directory does
            mark = os.open(
                os.path.join(self.path, "maildirfolder"),
                os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC,
                0o600,
            )
            os.close(mark)
        super().prepare()

    # --- folders ------------------------------------------------------------------------------

    def folders(self) -> list[str]:
        """Return the names of its folders, sorted; levels are separated by ``/``.

        Directories whose names stand for none (broken UTF-7) are left out.
        """
        try:
            entries = list(os.scandir(self.path))
        except FileNotFoundError:
            return []
        names = []
        for entry in entries:
            if entry.name.startswith(".") and os.path.isdir(os.path.join(entry.path, "cur")):
                name = folder_of(entry.name)
                if name is not None:
                    names.append(name)
        return sorted(names)

    def folder(self, name: str) -> Maildir:
        """Return a folder, which need not exist yet; the first message that comes makes it.

        Raises:
            FolderNameError: no folder can have this name.
        """
        return Maildir(os.path.join(self.path, directory_of(name)))

    def create_folder(self, name: str) -> Maildir:
        """Return a folder, made if it did not exist.

        Raises:
            FolderNameError: no folder can have this name.
            OSError: it cannot be made.
        """
        folder = self.folder(name)
        self.prepare()
        folder.prepare()
        return folder

    # --- messages -----------------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Return its messages in the order of their names, roughly the order of arrival.

        A message that exists all the time is listed once, even while others move it: new/ is read
        before cur/, and while the directories change they are read again.
        """
        found: dict[str, Message] = {}
        for _ in range(_LOOKS):
            before = self._changed()
            found.update((message.name, message) for message in self._scan(self.new, new=True))
            found.update((message.name, message) for message in self._scan(self.cur, new=False))
            quiet = time.time() - _TICK > max(before)
            if quiet and self._changed() == before:
                break
        return sorted(found.values(), key=lambda message: _order(message.name))

    def read(self, message: Message | str) -> bytes:
        """Return a message as it was delivered, wherever it is now.

        Args:
            message: as it was found, or its name.

        Raises:
            FileNotFoundError: it has been removed.
        """

        def whole(path: str) -> bytes:
            with open(path, "rb", buffering=0) as file:
                return file.readall()

        return self._at(message, lambda found: whole(found.path))

    def keep(self, message: Message | str, flags: str | None = None) -> Message:
        """Move a message from new/ to cur/, and set its flags.

        Args:
            message: as it was found, or its name.
            flags: all that it has afterwards, in any order; None for those that it has.

        Returns:
            The message as it is now.

        Raises:
            FileNotFoundError: it has been removed.
            ValueError: `flags` has something else than letters.
        """
        if flags is not None and not (flags.isascii() and (flags.isalpha() or not flags)):
            raise ValueError(f"{flags!r} are not flags, which are letters of ASCII")

        def move(found: Message) -> Message:
            wanted = found.flags if flags is None else "".join(sorted(set(flags)))
            path = f"{self.cur}/{found.name}{_INFO}{wanted}"
            if path != found.path:
                os.rename(found.path, path)
            else:
                os.stat(path)
            return Message(found.name, wanted, path, new=False)

        return self._at(message, move)

    def remove(self, message: Message | str) -> None:
        """Remove a message.

        Raises:
            FileNotFoundError: it has been removed already.
        """
        self._at(message, lambda found: os.unlink(found.path))

    def _at(self, message: Message | str, work: Callable[[Message], _T]) -> _T:
        """Do something with a message where it is, or where it has been moved to in the meantime.

        Raises:
            FileNotFoundError: it is not there.
        """
        name = message if isinstance(message, str) else message.name
        if not name or "/" in name or name.startswith("."):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        found = message if isinstance(message, Message) else self._expected(name)
        for _ in range(_LOOKS):
            try:
                return work(found)
            except FileNotFoundError:
                found = self._find(name)
        return work(found)

    def _find(self, name: str) -> Message:
        for message in self.messages():
            if message.name == name:
                return message
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}: {name}")

    def _expected(self, name: str) -> Message:
        return Message(name, "", f"{self.new}/{name}", new=True)

    def _changed(self) -> tuple[float, float]:
        """Return when new/ and cur/ last changed, 0 for one that is missing."""
        times = []
        for directory in (self.new, self.cur):
            try:
                times.append(os.stat(directory).st_mtime)
            except FileNotFoundError:
                times.append(0.0)
        return times[0], times[1]

    @staticmethod
    def _scan(directory: str, *, new: bool) -> list[Message]:
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return []
        messages = []
        for text in names:
            if not text.startswith("."):
                name, _, info = text.partition(":")
                # Anything but "2," is experimental, and has no flags.
                flags = info[2:] if info.startswith("2,") else ""
                messages.append(Message(name, flags, f"{directory}/{text}", new=new))
        return messages


def _order(name: str) -> tuple[int, str]:
    """Return a sort key: the seconds of a name (ten digits until 2286), then the rest."""
    seconds, _, rest = name.partition(".")
    return (int(seconds), rest) if seconds.isascii() and seconds.isdecimal() else (0, name)
