r"""EXPUNGE: messages that are ``\Deleted`` go.

Rules of this file: blocking; it takes the lock, slice by slice. Rows go first, together with the
note that the files have to follow (pending.py): as long as it stands, a file is not absorbed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag
from fastlisten.mail.store.pending import add, box_of, finish
from fastlisten.mail.store.schema import Op
from fastlisten.mail.store.selection import FileFinder, MessageRow, select, slices

__all__ = ["expunge", "remove"]


def expunge(index: Index, folder: int, uids: Sequence[int] | None = None) -> list[int]:
    r"""Remove messages that are ``\Deleted``.

    Args:
        index: the account's.
        folder: the folder's id.
        uids: which of them; None: all.

    Returns:
        The UIDs of those that are gone.
    """
    if uids is None:
        uids = [
            uid
            for (uid,) in index.query(
                "SELECT uid FROM message WHERE folder = ? AND flags & ? ORDER BY uid",
                (folder, int(Flag.DELETED)),
            )
        ]
    gone: list[int] = []
    for piece in slices(uids):
        with index.locked():
            box = box_of(index, folder)
            if box is None:
                return gone
            finder = FileFinder(box)
            doomed: list[tuple[MessageRow, int]] = []
            kept: list[tuple[MessageRow, int]] = []
            for row in select(index, folder, piece):
                if row.bits & Flag.DELETED:
                    found, _ = finder.find(row.name, row.bits)
                    bits = row.bits if found is None else found.bits
                    # Another program may have undeleted it.
                    (doomed if bits & Flag.DELETED else kept).append((row, bits))
            if kept:
                with index.transaction() as db:
                    number = index.numbers(1)
                    db.executemany(
                        "UPDATE message SET flags = ?, modseq = ? WHERE folder = ? AND uid = ?",
                        [(bits, number, folder, row.uid) for row, bits in kept],
                    )
            remove(index, folder, doomed)
            gone += [row.uid for row, _ in doomed]
    return gone


def remove(index: Index, folder: int, messages: Sequence[tuple[MessageRow, int]]) -> None:
    """Remove messages and their files, under the lock.

    Args:
        index: the account's.
        folder: the folder's id.
        messages: with the flags that their files have.
    """
    if not messages:
        return
    with index.transaction() as db:
        index.numbers(1)
        for row, bits in messages:
            db.execute("DELETE FROM message WHERE folder = ? AND uid = ?", (folder, row.uid))
            add(db, folder, row.name, Op.REMOVE, str(bits))
    finish(index)
