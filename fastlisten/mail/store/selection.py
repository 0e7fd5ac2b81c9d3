"""Messages of a folder that a command names, slice by slice, with their files.

Rules of this file: under the lock. What a file's name says about flags counts more than the index:
another program may have changed them, and a command's change applies to what is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.files import Found, Listing, path_of
from fastlisten.mail.store.index import LARGEST_SLICE, Index

__all__ = ["FileFinder", "MessageRow", "select", "slices"]


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A row of `message`; `modseq` as it is reported."""

    uid: int
    email: int
    name: str
    bits: int
    keywords: str
    modseq: int


def slices(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield as many UIDs as are changed under one lock."""
    for start in range(0, len(uids), LARGEST_SLICE):
        yield uids[start : start + LARGEST_SLICE]


def select(index: Index, folder: int, uids: Sequence[int]) -> list[MessageRow]:
    """Return those messages of a folder that exist, by UID."""
    rows = index.query(
        "SELECT uid, email, name, flags, keywords, max(modseq, floor) FROM message, state"
        " WHERE folder = ? AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
        (folder, json.dumps(list(uids))),
    )
    return [MessageRow(*row) for row in rows]


class FileFinder:
    """Finds the files of several messages, and lists the directories at most once for them.

    Args:
        box: the folder.
    """

    __slots__ = ("_box", "_listing")

    def __init__(self, box: Maildir) -> None:
        self._box = box
        self._listing: Listing | None = None

    def find(self, name: str, bits: int) -> tuple[Found | None, bool]:
        """Return a message's file, None if it was not seen, and whether that is certain."""
        path = path_of(self._box, name, bits)
        if os.path.lexists(path):
            return Found(name, bits, path, new=False), True
        if self._listing is None:
            self._listing = Listing(self._box)
        found = self._listing.files.get(name)
        return found, found is not None or self._listing.settled
