"""A copy of an account, while others use it: the index at one moment, and the messages it names.

Rules of this file: blocking. The lock is held only while the index is copied; then the files follow
at leisure. A message is never rewritten, so it is enough to find its file: by its name, and if it
was moved to another folder meanwhile, by its EMAILID. It is stored under the name and with the
flags that the copied index has. One that was expunged meanwhile is left out: whoever opens the
copy takes it for expunged. Messages that came meanwhile are for the next backup.

    index.db  uidvalidity            of the account
    cur/NAME:2,FLAGS                 INBOX
    .Folder/cur/NAME:2,FLAGS         other folders
    NAME, .Folder/NAME               small files of other programs (sieve scripts, say)
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, unique_name
from fastlisten.mail.store.files import path_of
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.letters import letters_of
from fastlisten.mail.store.selection import FileFinder
from fastlisten.mail.store.usage import catch_up

__all__ = ["BackedUp", "Sink", "back_up"]

#: How often a file is looked for that others keep moving.
_TRIES = 8

#: Beginning of the names of copies of the index that are being made.
_COPY = "index.backup."


class Sink(Protocol):
    """Where a backup goes."""

    def directory(self, name: str) -> None:
        """Make a directory; those above it have been made."""

    def file(self, name: str, fd: int, size: int, mtime: int) -> None:
        """Store a file.

        Args:
            name: its path in the account.
            fd: read from its beginning.
            size: its octets.
            mtime: its time in ns.
        """


@dataclass(slots=True)
class BackedUp:
    """What a backup holds: messages, their octets, folders; how many were expunged meanwhile."""

    messages: int = 0
    octets: int = 0
    folders: int = 0
    missing: int = 0


def back_up(index: Index, sink: Sink) -> BackedUp:
    """Copy an account.

    Args:
        index: the account's.
        sink: receives the copy.

    Raises:
        OSError, sqlite3.Error: it cannot be copied.
    """
    done = BackedUp()
    root = index.maildir.path
    catch_up(index)
    with _copied(index) as (fd, copy):
        status = os.fstat(fd)
        sink.file("index.db", fd, status.st_size, status.st_mtime_ns)
        for folder, name in copy.execute("SELECT id, name FROM folder ORDER BY name").fetchall():
            done.folders += 1
            if name:
                sink.directory(name)
            for part in ("cur", "new", "tmp"):
                sink.directory(f"{name}/{part}".lstrip("/"))
            _store_others(f"{root}/{name}".rstrip("/"), name, sink)
            _store_messages(index, copy, folder, name, sink, done)
    return done


@contextlib.contextmanager
def _copied(index: Index) -> Iterator[tuple[int, sqlite3.Connection]]:
    """Copy the index; yield a descriptor of the copy, which has no name any more, and open it."""
    _remove_stale(index.maildir.path)
    path = f"{index.maildir.path}/{_COPY}{unique_name()}"
    with contextlib.ExitStack() as stack:
        unlink = stack.enter_context(contextlib.ExitStack())
        unlink.callback(_unlink, path)
        with index.locked():
            index.copy_into(path)
        # Wherever it is opened, it is a restored copy, even in the file that it was made from.
        copy = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
        copy.execute("UPDATE state SET file = '', dirty_boot = ''")
        # Closing any descriptor of a database drops the locks of this process, but nobody else has
        # this one.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        unlink.close()
        yield fd, copy


def _remove_stale(root: str) -> None:
    """Remove what killed backups have left."""
    for entry in os.scandir(root):
        if entry.name.startswith(_COPY):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > STALE_AFTER:
                    os.unlink(entry.path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _store_others(directory: str, name: str, sink: Sink) -> None:
    """Store the files beside the directories of messages, but none of the index."""
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        if entry.name.startswith("index.") or not entry.is_file(follow_symlinks=False):
            continue
        with contextlib.suppress(FileNotFoundError):
            _store_file(sink, entry.path, f"{name}/{entry.name}".lstrip("/"))


def _store_messages(
    index: Index, copy: sqlite3.Connection, folder: int, name: str, sink: Sink, done: BackedUp
) -> None:
    root = index.maildir.path
    finder = FileFinder(Maildir(f"{root}/{name}".rstrip("/")))
    rows = copy.execute(
        "SELECT name, flags, email FROM message WHERE folder = ? ORDER BY uid", (folder,)
    )
    for base, bits, email in rows:
        target = f"{name}/cur/{base}:2,{letters_of(bits)}".lstrip("/")
        for _ in range(_TRIES):
            path = _path(index, finder, base, bits, email)
            if path is None:
                done.missing += 1
                break
            try:
                done.octets += _store_file(sink, path, target)
            except FileNotFoundError:
                finder = FileFinder(Maildir(f"{root}/{name}".rstrip("/")))
            else:
                done.messages += 1
                break
        else:
            raise OSError(errno.EBUSY, "others keep moving it", path)


def _path(index: Index, finder: FileFinder, name: str, bits: int, email: int) -> str | None:
    """Return where a message is now; None if it is gone."""
    found, _ = finder.find(name, bits)
    if found is not None:
        return found.path
    rows = index.query(
        "SELECT folder.name, message.name, flags FROM message"
        " JOIN folder ON folder.id = message.folder WHERE email = ?",
        (email,),
    )
    for directory, base, now in rows:
        box = Maildir(f"{index.maildir.path}/{directory}".rstrip("/"))
        if os.path.lexists(path_of(box, base, now)):
            return path_of(box, base, now)
        found, _ = FileFinder(box).find(base, now)
        if found is not None:
            return found.path
    return None


def _store_file(sink: Sink, path: str, name: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        sink.file(name, fd, status.st_size, status.st_mtime_ns)
        return status.st_size
    finally:
        os.close(fd)
