"""How much mail an account has, and whether more fits into its quota.

Rules of this file: blocking. What counts is everything in the account's folders, also what others
have put there: the index's sums, after a look at folders that have changed, and what lies in new/
and has no UID yet. Under the lock this is exact, because every delivery to an account with a quota
(delivery/mailbox_room.py), every APPEND and every COPY is made under it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.files import found_in_new, inspect, names_in_new, times_of
from fastlisten.mail.store.folders import discover
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreFullError, Usage
from fastlisten.mail.store.rows import NewMessage, size_of

__all__ = ["OVER_QUOTA", "admit", "catch_up", "deleted_size", "fits", "sums", "usage"]

#: Messages of a folder that may be listed each time, in some 10 ms.
_LARGE = 10_000

#: How much longer the pause after a listing is.
_PAUSE = 20

#: What Dovecot says, and what administrators search for.
OVER_QUOTA = "Quota exceeded (mailbox for user is full)"


def fits(used: Usage, quota: Quota, more: Usage) -> bool:
    """Return whether more mail fits.

    Args:
        used: what there is.
        quota: what there may be.
        more: what is to come.
    """
    return (quota.bytes is None or used.bytes + more.bytes <= quota.bytes) and (
        quota.messages is None or used.messages + more.messages <= quota.messages
    )


def sums(index: Index) -> Usage:
    """Return what the index knows of, with the lock or without."""
    ((size, total),) = index.query(
        "SELECT coalesce(sum(size), 0), coalesce(sum(total), 0) FROM folder"
    )
    return Usage(size, total)


def catch_up(index: Index) -> None:
    """Look at all folders that have changed; takes the lock.

    A large folder in which others keep changing something would be listed each time. After a
    listing, the next one waits `_PAUSE` times as long, and only new/ is looked at meanwhile.

    Raises:
        OSError: one cannot be read.
        sqlite3.Error: the index cannot be used.
    """
    discover(index)
    rows = index.query("SELECT id, name, seen_mtime, total FROM folder")
    for folder, name, seen, total in rows:
        box = _box(index, name)
        changed = times_of(box)[1] != abs(seen)
        if changed and index.pauses.get(folder, 0.0) <= time.monotonic():
            began = time.monotonic()
            look(index, folder)
            took = time.monotonic() - began
            if total > _LARGE:
                index.pauses[folder] = began + took * (1 + _PAUSE)
        elif next(names_in_new(box), None) is not None:
            look(index, folder, only_new=True)


def usage(index: Index) -> Usage:
    """Return what there is; exact under the lock, after `catch_up`.

    Raises:
        OSError: a folder cannot be read.
    """
    size, total = sums(index)
    for folder, name in index.query("SELECT id, name FROM folder"):
        for found in found_in_new(_box(index, name)):
            if _known(index, folder, found.name):
                continue
            try:
                inspected = inspect(found.path)
            except FileNotFoundError:
                continue  # somebody is moving it
            if inspected is not None:
                size, total = size + inspected.size, total + 1
    return Usage(size, total)


def _known(index: Index, folder: int, name: str) -> bool:
    rows = "SELECT 1 FROM message WHERE folder = ? AND name = ?"
    try:
        return bool(index.query(rows, (folder, name)))
    except UnicodeEncodeError:
        return False  # the next look gives it another name


def admit(index: Index, messages: Sequence[NewMessage]) -> None:
    """Refuse messages that do not fit, under the lock.

    Raises:
        StoreFullError: they would exceed the quota.
    """
    quota = index.quota()
    if quota == NO_QUOTA:
        return
    more = Usage(sum(size_of(index, message) for message in messages), len(messages))
    if not fits(usage(index), quota, more):
        raise StoreFullError(OVER_QUOTA)


def deleted_size(index: Index, folder: int) -> int:
    r"""Return the octets of the messages of a folder that are ``\Deleted``."""
    ((size,),) = index.query(
        "SELECT coalesce(sum(email.size), 0) FROM message JOIN email ON email.id = message.email"
        " WHERE folder = ? AND flags & ?",
        (folder, int(Flag.DELETED)),
    )
    return int(size)


def _box(index: Index, name: str) -> Maildir:
    return Maildir(f"{index.maildir.path}/{name}") if name else index.maildir
