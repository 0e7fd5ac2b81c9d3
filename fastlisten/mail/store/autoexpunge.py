"""Messages that have been in Trash or Junk for long go by themselves (Dovecot: autoexpunge).

Rules of this file: blocking. What counts is when a message came into the folder: `createseq`, which
is a clock in microseconds. That is Dovecot's saved date; INTERNALDATE would take an old message
that was deleted yesterday. Flags do not count. It is done once a day and account, by whoever takes
the lock first, slice by slice.
"""

from __future__ import annotations

import contextlib
import os
import time

from fastlisten.mail.store.expunge import remove
from fastlisten.mail.store.index import LARGEST_SLICE, Index
from fastlisten.mail.store.pending import box_of
from fastlisten.mail.store.selection import FileFinder, select

__all__ = ["EVERY", "claim", "expire"]

#: Seconds between two times.
EVERY = 86400.0

#: The file whose time says when it was done last.
_MARK = "index.autoexpunge"


def claim(index: Index) -> bool:
    """Return whether it is to be done now; nobody else does it then.

    Raises:
        OSError: that cannot be noted.
    """
    path = f"{index.maildir.path}/{_MARK}"
    with index.locked():
        with contextlib.suppress(FileNotFoundError):
            # A time in the future means nothing: the clock was set back.
            if 0 <= time.time() - os.stat(path).st_mtime < EVERY:
                return False
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.utime(fd)
        finally:
            os.close(fd)
        return True


def expire(index: Index, role: str, age: float) -> int:
    """Remove one slice of old messages.

    Args:
        index: the account's.
        role: of the folder they are in; without such a folder nothing is done.
        age: seconds for which they have been there.

    Returns:
        How many it were; 0: there are no more.

    Raises:
        OSError, sqlite3.Error: they cannot be removed.
    """
    before = int((time.time() - age) * 1_000_000)
    with index.locked():
        rows = index.query("SELECT id FROM folder WHERE role = ?", (role,))
        box = box_of(index, rows[0][0]) if rows else None
        if box is None:
            return 0
        ((folder,),) = rows
        uids = index.query(
            "SELECT uid FROM message WHERE folder = ? AND createseq < ? ORDER BY uid LIMIT ?",
            (folder, before, LARGEST_SLICE),
        )
        finder = FileFinder(box)
        doomed = []
        for row in select(index, folder, [uid for (uid,) in uids]):
            found, _ = finder.find(row.name, row.bits)
            doomed.append((row, row.bits if found is None else found.bits))
        remove(index, folder, doomed)
        return len(doomed)
