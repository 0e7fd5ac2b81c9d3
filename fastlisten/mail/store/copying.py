"""COPY and MOVE.

Rules of this file: blocking. A copy is a hard link under a new name, or another file where there
can be no link; all are staged in the target's tmp/ and become visible together (publish.py). A move
is a rename that never overwrites anything; each message moves at once, slice by slice. EMAILID
stays the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.files import inspect
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Copied, FolderNotFoundError
from fastlisten.mail.store.pending import add, box_of, finish
from fastlisten.mail.store.publish import box_to_write, publish, unstage
from fastlisten.mail.store.rows import NewMessage, insert_messages
from fastlisten.mail.store.schema import Op
from fastlisten.mail.store.selection import FileFinder, MessageRow, select, slices
from fastlisten.private_files import open_new

__all__ = ["copy", "move"]

#: Errors of link(2) that mean "not here": another filesystem, one without links, too many links.
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

#: How often a file is looked for that others keep moving.
_TRIES = 8


def copy(index: Index, folder: int, uids: Sequence[int], target: int) -> Copied:
    """Copy messages with flags, keywords and dates into a folder: all or none.

    Args:
        index: the account's.
        folder: the id of the folder they are in.
        uids: their UIDs; those of messages that are gone are left out.
        target: the id of the folder they are copied into, which may be the same.

    Raises:
        FolderNotFoundError: the target has been deleted.
        OSError: one of them cannot be copied.
    """
    source, there = box_of(index, folder), box_to_write(index, target)
    staged: list[tuple[MessageRow, str, int]] = []
    if source is None:
        return Copied(0, (), ())
    try:
        finder = FileFinder(source)
        for piece in slices(uids):
            for row in select(index, folder, piece):
                name = unique_name()
                bits = _stage(source, finder, row, there, name)
                if bits is not None:
                    staged.append((row, name, bits))

        def messages() -> list[NewMessage]:
            known = set()
            for piece in slices([row.uid for row, _, _ in staged]):
                known |= {row.email for row in select(index, folder, piece)}
            return [
                NewMessage(name, bits, None, row.keywords, row.email)
                if row.email in known
                # It has been expunged meanwhile, and nothing is known of it any more.
                else NewMessage(name, bits, inspect(f"{there.tmp}/{name}"), row.keywords)
                for row, name, bits in staged
            ]

        appended = publish(index, target, messages)
    except BaseException:
        unstage(there, [name for _, name, _ in staged])
        raise
    return Copied(appended.uidvalidity, [row.uid for row, _, _ in staged], appended.uids)


def _stage(
    source: Maildir, finder: FileFinder, row: MessageRow, there: Maildir, name: str
) -> int | None:
    """Link or copy a message into the target's tmp/; return its flags, None if it is gone."""
    path = f"{there.tmp}/{name}"
    for _ in range(_TRIES):
        found, certain = finder.find(row.name, row.bits)
        if found is None:
            if certain:
                return None
        else:
            try:
                _link(found.path, path, there)
            except FileNotFoundError:
                pass
            else:
                return found.bits
        finder = FileFinder(source)
    return None


def _link(path: str, target: str, there: Maildir) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        if os.path.isdir(there.tmp):
            raise
        there.prepare()
        os.link(path, target)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        with open(path, "rb") as whole:
            fd = open_new(target)
            try:
                with open(fd, "wb") as file:
                    shutil.copyfileobj(whole, file)
                    file.flush()
                    status = os.fstat(whole.fileno())
                    os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
                    os.fsync(fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(target)
                raise


def move(index: Index, folder: int, uids: Sequence[int], target: int) -> Copied:
    """Move messages into a folder.

    Args:
        index: the account's.
        folder: the id of the folder they are in.
        uids: their UIDs; those of messages that are gone are left out.
        target: the id of the folder they are moved into. If it is the same, they get new UIDs.

    Raises:
        FolderNotFoundError: the target has been deleted.
        OSError: one of them cannot be moved.
    """
    sources: list[int] = []
    targets: list[int] = []
    uidvalidity = 0
    for piece in slices(uids):
        with index.locked():
            source = box_of(index, folder)
            rows = index.query("SELECT uidvalidity FROM folder WHERE id = ?", (target,))
            if not rows:
                raise FolderNotFoundError("Mailbox has been deleted")
            uidvalidity = rows[0][0]
            if source is not None:
                moved = _move(index, folder, source, piece, target)
                sources += [before for before, _ in moved]
                targets += [after for _, after in moved]
    return Copied(uidvalidity, sources, targets)


def _move(
    index: Index, folder: int, source: Maildir, uids: Sequence[int], target: int
) -> list[tuple[int, int]]:
    finder = FileFinder(source)
    rows: list[tuple[MessageRow, int, str]] = []
    for row in select(index, folder, uids):
        found, certain = finder.find(row.name, row.bits)
        if found is None and certain:
            continue
        taken = index.query(
            "SELECT 1 FROM message WHERE folder = ?1 AND name = ?2"
            " UNION ALL SELECT 1 FROM pending WHERE folder = ?1 AND name = ?2",
            (target, row.name),
        )
        name = unique_name() if taken else row.name
        rows.append((row, row.bits if found is None else found.bits, name))
    if not rows:
        return []
    sync = index.exhausts_sync(target, len(rows))
    with index.transaction(sync=sync) as db:
        # The new rows first: an email goes with its last one.
        first = insert_messages(
            index,
            db,
            target,
            [NewMessage(name, bits, None, row.keywords, row.email) for row, bits, name in rows],
            synced=sync,
        )
        for row, bits, name in rows:
            db.execute("DELETE FROM message WHERE folder = ? AND uid = ?", (folder, row.uid))
            add(db, folder, row.name, Op.MOVE, f"{bits},{target},{name}")
    errors = finish(index)
    for row, _, _ in rows:
        if error := errors.get((folder, row.name)):
            raise error
    return [(row.uid, first + place) for place, (row, _, _) in enumerate(rows)]
