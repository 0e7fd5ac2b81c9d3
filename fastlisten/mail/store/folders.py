"""The folders of an account: which there are, and CREATE, DELETE, RENAME.

Rules of this file: blocking. A folder is a directory with cur/ in it (Maildir++) and a row of the
index; other programs make and remove directories, so the two are compared whenever folders are
listed, and when a name is not found. INBOX, in any case, is the Maildir itself. A directory whose
name is no valid one (folder_names.py) is listed as it is called.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of, folder_of
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.admission import (
    check_depth,
    check_number,
    check_subscriptions,
    has_room_for_subscription,
)
from fastlisten.mail.store.first_open import FormerFolder, end_import, former_folder, importing
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import (
    FolderExistsError,
    FolderNotFoundError,
    FolderRefusedError,
    Listed,
    Status,
)
from fastlisten.mail.store.pending import TRASH, add, finish
from fastlisten.mail.store.schema import Gone, Op

__all__ = [
    "INBOX",
    "FolderRow",
    "create",
    "delete",
    "discover",
    "empty_trash",
    "find",
    "folders",
    "insert",
    "name_of",
    "rename",
    "status",
    "subscribe",
]

INBOX = "INBOX"


@dataclass(frozen=True, slots=True)
class FolderRow:
    """A folder as the index knows it.

    Attributes:
        id: identifies it as long as it exists, whatever it is called.
        directory: the name of its directory; empty: INBOX.
        uidvalidity: its UIDVALIDITY.
    """

    id: int
    directory: str
    uidvalidity: int

    @property
    def name(self) -> str:
        """Its name."""
        return name_of(self.directory)


def name_of(directory: str) -> str:
    """Return the name of the folder in a directory; empty: INBOX."""
    if not directory:
        return INBOX
    name = folder_of(directory)
    return directory if name is None or name.upper() == INBOX else name


def _directory_of(name: str) -> str:
    """Return the directory of a name that a client gave; empty: INBOX.

    Raises:
        FolderRefusedError: no folder can have this name.
    """
    if name.upper() == INBOX:
        return ""
    try:
        return directory_of(name)
    except FolderNameError as error:
        raise FolderRefusedError(str(error)) from None


# --- what there is --------------------------------------------------------------------------------


def discover(index: Index) -> None:
    """Compare the directories with the index."""
    with index.locked():
        if not index.read_only:
            _discover(index)


def _discover(index: Index) -> None:
    root = index.maildir.path
    known = dict(index.query("SELECT name, id FROM folder"))
    found = {""}
    for entry in os.scandir(root):
        if entry.name.startswith(".") and os.path.isdir(f"{entry.path}/cur"):
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                continue  # no client could name it
            found.add(entry.name)
    # Some may be on their way to the trash.
    found -= {
        name for (name,) in index.query("SELECT name FROM pending WHERE op = ?", (Op.TRASH_FOLDER,))
    }
    # A name may be missing from a listing because another one is changed meanwhile.
    gone = [name for name in known if name not in found and not os.path.isdir(f"{root}/{name}")]
    first = importing(index)
    formers = {
        name: former_folder(f"{root}/{name}" if name else root) if first else None
        for name in sorted(found - known.keys())
    }
    given = [former.uidvalidity if former else 0 for former in formers.values()]
    if 0 in given:
        # For all at once: a number is on the disk before it is used.
        number = index.new_uidvalidity(given.count(0), above=max(given))
        fresh = iter(range(number, number + given.count(0)))
        given = [uidvalidity or next(fresh) for uidvalidity in given]
    for (name, former), uidvalidity in zip(formers.items(), given, strict=True):
        insert(index, name, former=former, uidvalidity=uidvalidity)
    if first:
        end_import(index)
    for name in gone:
        with index.transaction() as db:
            _forget(index, db, known[name])
    if gone:
        finish(index)


def insert(
    index: Index,
    directory: str,
    role: str = "",
    *,
    subscribed: bool = False,
    former: FormerFolder | None = None,
    uidvalidity: int = 0,
) -> None:
    """Add a folder to the index, under the lock.

    Args:
        index: the account's.
        directory: the folder's.
        role: its special use; another folder that has it loses it.
        subscribed: subscribe to it, too, unless there are too many subscriptions.
        former: what another server knew about it.
        uidvalidity: its UIDVALIDITY; 0: a new one.
    """
    uidnext = former.uidnext if former else 1
    uidvalidity = uidvalidity or index.new_uidvalidity()
    with index.transaction() as db:
        number = index.numbers(1)
        row = db.execute("SELECT role FROM former WHERE name = ?", (directory,)).fetchone()
        db.execute("DELETE FROM former WHERE name = ?", (directory,))
        if row is not None and not role:
            (role,) = row
        if role:
            db.execute("UPDATE folder SET role = NULL, modseq = ? WHERE role = ?", (number, role))
        db.execute(
            "INSERT INTO folder"
            " (id, name, uidvalidity, highmodseq, createseq, modseq, countseq, role, uidnext,"
            " synced, recent)"
            " VALUES (?1, ?2, ?3, ?1, ?1, ?1, ?1, ?4, ?5, ?5, ?5)",
            (number, directory, uidvalidity, role or None, uidnext),
        )
        if former and former.wanted:
            db.execute("INSERT INTO former_uids VALUES (?, ?)", (number, uidnext))
        if subscribed and has_room_for_subscription(index, db):
            db.execute("INSERT OR IGNORE INTO subscription VALUES (?)", (name_of(directory),))


def _forget(index: Index, db: sqlite3.Connection, folder: int) -> None:
    """Remove a folder from the index, and have its messages follow."""
    number = index.numbers(1)
    db.execute(
        "INSERT INTO gone (type, folder, uid, id, createseq, modseq)"
        " SELECT ?, 0, 0, id, createseq, ? FROM folder WHERE id = ?",
        (Gone.FOLDER, number, folder),
    )
    db.execute("DELETE FROM folder WHERE id = ?", (folder,))
    db.execute("DELETE FROM keyword WHERE folder = ?", (folder,))
    db.execute("DELETE FROM former_uids WHERE folder = ?", (folder,))
    add(db, folder, "", Op.PURGE_FOLDER)


def find(index: Index, name: str) -> FolderRow:
    """Return a folder by its name.

    Raises:
        FolderNotFoundError: there is none.
    """
    row = _find(index, name)
    if row is None:
        discover(index)
        row = _find(index, name)
    if row is None:
        raise FolderNotFoundError(f"Mailbox doesn't exist: {name}")
    return row


def _find(index: Index, name: str) -> FolderRow | None:
    wanted = [name] if name else []  # a directory's name that stands for itself
    with contextlib.suppress(FolderRefusedError):
        wanted.append(_directory_of(name))
    for directory in reversed(wanted):
        try:
            rows = index.query(
                "SELECT id, name, uidvalidity FROM folder WHERE name = ?", (directory,)
            )
        except UnicodeEncodeError:
            continue
        for row in rows:
            found = FolderRow(*row)
            if directory == "" or found.name == unicodedata.normalize("NFC", name):
                return found
    return None


def folders(index: Index) -> list[Listed]:
    """Return all folders and subscribed names, and the levels above them, sorted by name."""
    discover(index)
    subscribed = {name for (name,) in index.query("SELECT name FROM subscription")}
    rows = index.query("SELECT name, role FROM folder")
    listed = {
        name: Listed(name, subscribed=name in subscribed, role=role or "")
        for name, role in ((name_of(directory), role) for directory, role in rows)
    }
    for name in [*listed, *subscribed]:
        levels = name.split("/")
        for size in range(1, len(levels) + 1):
            above = "/".join(levels[:size])
            if above not in listed:
                listed[above] = Listed(above, exists=False, subscribed=above in subscribed)
    return [listed[name] for name in sorted(listed)]


def status(index: Index, folder: FolderRow) -> Status:
    """Return the sums of a folder, as the index has them.

    Raises:
        FolderNotFoundError: it has been deleted.
    """
    rows = index.query(
        "SELECT total, unseen, deleted, size, uidnext, uidvalidity, max(highmodseq, floor), recent"
        " FROM folder, state WHERE folder.id = ?",
        (folder.id,),
    )
    if not rows:
        raise FolderNotFoundError(f"Mailbox has been deleted: {folder.name}")
    total, unseen, deleted, size, uidnext, uidvalidity, modseq, first_recent = rows[0]
    ((recent,),) = index.query(
        "SELECT count(*) FROM message WHERE folder = ? AND uid >= ?", (folder.id, first_recent)
    )
    return Status(
        messages=total,
        recent=recent,
        unseen=unseen,
        deleted=deleted,
        size=size,
        uidnext=uidnext,
        uidvalidity=uidvalidity,
        highestmodseq=modseq,
        mailbox_id=f"F{folder.id}",
    )


def subscribe(index: Index, name: str, subscribed: bool) -> None:
    """Add a name to the subscribed ones, or take it away.

    Raises:
        FolderRefusedError: no folder can have this name.
        LimitReachedError: there are too many subscriptions.
    """
    directory = _directory_of(name)
    name = unicodedata.normalize("NFC", name) if directory else INBOX
    with index.locked(), index.transaction() as db:
        if subscribed:
            if not db.execute("SELECT 1 FROM subscription WHERE name = ?", (name,)).fetchone():
                check_subscriptions(index, db)
                db.execute("INSERT INTO subscription VALUES (?)", (name,))
        else:
            db.execute("DELETE FROM subscription WHERE name = ?", (name,))


# --- changes --------------------------------------------------------------------------------------


def create(index: Index, name: str, role: str = "") -> FolderRow:
    """Make a folder, subscribed.

    Args:
        index: the account's.
        name: its name.
        role: its special use; another folder that has it loses it. Empty: none.

    Raises:
        FolderExistsError, FolderRefusedError, LimitReachedError: it cannot be made.
        OSError: its directory cannot be made.
    """
    directory = _directory_of(name)
    with index.locked():
        _discover(index)
        if _find(index, name) is not None:
            raise FolderExistsError(f"Mailbox already exists: {name}")
        check_number(index)
        check_depth(index, name)
        # First, because a directory without a row is found again, and empty.
        Maildir(f"{index.maildir.path}/{directory}").prepare()
        insert(index, directory, role, subscribed=True)
    return find(index, name)


def delete(index: Index, name: str) -> None:
    """Delete a folder with its messages; those below it stay, and so does a subscription.

    Raises:
        FolderNotFoundError: there is none.
        FolderRefusedError: it is INBOX.
        OSError: its directory cannot be moved away.
    """
    with index.locked():
        folder = _find(index, name)
        if folder is None:
            _discover(index)
            folder = _find(index, name)
        if folder is None:
            raise FolderNotFoundError(f"Mailbox doesn't exist: {name}")
        if not folder.directory:
            raise FolderRefusedError("INBOX cannot be deleted")
        with index.transaction() as db:
            add(db, 0, folder.directory, Op.TRASH_FOLDER, unique_name())
            _forget(index, db, folder.id)
        errors = finish(index)
    if (0, folder.directory) in errors:
        raise errors[0, folder.directory]
    while index.query("SELECT 1 FROM pending WHERE folder = ? LIMIT 1", (folder.id,)):
        with index.locked():
            pass  # which removes some more messages from the index
    empty_trash(index)


def empty_trash(index: Index) -> None:
    """Remove the files of deleted folders, without the lock: nobody looks for them."""
    trash = f"{index.maildir.path}/{TRASH}"
    if os.path.isdir(trash):
        shutil.rmtree(trash, ignore_errors=True)


def rename(index: Index, old: str, new: str) -> None:
    """Rename a folder and all below it. INBOX is refused here: moving its messages is not renaming.

    A name that only has folders below it may be renamed too, for clients show it as a folder.

    Raises:
        FolderNotFoundError, FolderExistsError, FolderRefusedError, LimitReachedError: it cannot be
            done.
        OSError: a directory cannot be renamed.
    """
    directory = _directory_of(new)
    with index.locked():
        _discover(index)
        folder = _find(index, old)
        former = _directory_of(old) if folder is None else folder.directory
        if not former:
            raise FolderRefusedError("INBOX cannot be renamed")
        if not directory or (folder is None and _find(index, new) is not None):
            raise FolderExistsError(f"Mailbox already exists: {new}")
        prefix = f"{former}."
        if directory == former or directory.startswith(prefix):
            raise FolderRefusedError(f"{new} is the folder itself, or below it")
        moves = [] if folder is None else [(folder.id, former, directory)]
        for number, name in index.query("SELECT id, name FROM folder ORDER BY name"):
            if name.startswith(prefix):
                moves.append((number, name, directory + name[len(former) :]))
        if not moves:
            raise FolderNotFoundError(f"Mailbox doesn't exist: {old}")
        _check_targets(index, moves)
        with index.transaction() as db:
            number = index.numbers(1)
            for one, before, after in moves:
                db.execute(
                    "UPDATE folder SET name = ?, modseq = ? WHERE id = ?", (after, number, one)
                )
                add(db, one, before, Op.RENAME_FOLDER, after)
                if has_room_for_subscription(index, db):
                    db.execute(
                        "INSERT OR IGNORE INTO subscription"
                        " SELECT ? FROM subscription WHERE name = ?",
                        (name_of(after), name_of(before)),
                    )
        errors = finish(index)
    for error in errors.values():
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FolderExistsError(f"Mailbox already exists: {new}")
        raise error


def _check_targets(index: Index, moves: Sequence[tuple[int, str, str]]) -> None:
    for _, before, after in moves:
        if len(after.encode()) > 255:
            raise FolderRefusedError(f"{name_of(before)} would have too long a name")
        check_depth(index, name_of(after))
        there = index.query("SELECT 1 FROM folder WHERE name = ?", (after,))
        if there or os.path.lexists(f"{index.maildir.path}/{after}"):
            raise FolderExistsError(f"Mailbox already exists: {name_of(after)}")
