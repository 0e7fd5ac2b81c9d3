"""Messages that have been staged in tmp/ become visible: all of them, or none.

Rules of this file: blocking. The files are whole and synced. Rows and the notes that the files have
to be renamed (pending.py) are one transaction, however many there are: a crash leaves either none
or all. What cannot be renamed afterwards is taken back with the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

from fastlisten.mail.accounts.quota import NO_QUOTA
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.admission import admit_keywords
from fastlisten.mail.store.expunge import remove
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Appended, FolderNotFoundError
from fastlisten.mail.store.pending import add, box_of, finish
from fastlisten.mail.store.rows import NewMessage, insert_messages
from fastlisten.mail.store.schema import Op
from fastlisten.mail.store.selection import select
from fastlisten.mail.store.usage import admit, catch_up
from fastlisten.private_files import sync_directory

__all__ = ["box_to_write", "publish", "unstage"]


def box_to_write(index: Index, folder: int) -> Maildir:
    """Return the Maildir of a folder.

    Raises:
        FolderNotFoundError: it has been deleted.
    """
    box = box_of(index, folder)
    if box is None:
        raise FolderNotFoundError("Mailbox has been deleted")
    return box


def unstage(box: Maildir, names: Iterable[str]) -> None:
    """Remove files from tmp/."""
    for name in names:
        with contextlib.suppress(OSError):  # what cannot be removed now is cleaned up later
            os.unlink(f"{box.tmp}/{name}")


def publish(index: Index, folder: int, messages: Callable[[], Sequence[NewMessage]]) -> Appended:
    """Make staged messages visible and durable.

    Args:
        index: the account's.
        folder: the folder's id.
        messages: called under the lock; returns the messages, whose files are in tmp/.

    Raises:
        FolderNotFoundError: the folder has been deleted.
        StoreFullError: they exceed the quota; none is visible.
        LimitReachedError: they have too many keywords; none is visible.
        OSError: they could not be made durable; none is visible.
    """
    if index.quota() != NO_QUOTA:
        catch_up(index)
    with index.locked():
        box = box_to_write(index, folder)
        staged = messages()
        admit(index, staged)
        admit_keywords(index, folder, (it for one in staged for it in one.keywords.split()))
        ((uidvalidity,),) = index.query("SELECT uidvalidity FROM folder WHERE id = ?", (folder,))
        if not staged:
            return Appended(uidvalidity, ())
        sync = index.exhausts_sync(folder, len(staged))
        with index.transaction(sync=sync) as db:
            first = insert_messages(index, db, folder, staged, synced=sync)
            for message in staged:
                add(db, folder, message.name, Op.PUBLISH, str(message.bits))
        uids = range(first, first + len(staged))
        errors = finish(index)
        for message in staged:
            if error := errors.get((folder, message.name)):
                _take_back(index, folder, box, staged, uids)
                raise error
    try:
        sync_directory(box.cur)
    except OSError:
        with index.locked():
            _take_back(index, folder, box, staged, uids)
        raise
    return Appended(uidvalidity, uids)


def _take_back(
    index: Index, folder: int, box: Maildir, staged: Sequence[NewMessage], uids: Sequence[int]
) -> None:
    with index.transaction() as db:
        db.executemany(
            "DELETE FROM pending WHERE folder = ? AND name = ? AND op = ?",
            [(folder, message.name, Op.PUBLISH) for message in staged],
        )
    unstage(box, [message.name for message in staged])
    remove(index, folder, [(row, row.bits) for row in select(index, folder, uids)])
