"""Whether an account may have another folder or subscription, a deeper name, or more keywords.

Rules of this file: for what clients ask for, under the account's lock. What is there is never
refused: mail that comes in, folders that other programs make, and messages that are moved with
their keywords.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import LimitReachedError

__all__ = [
    "LONGEST_KEYWORD",
    "admit_keywords",
    "check_depth",
    "check_number",
    "check_subscriptions",
    "has_room_for_subscription",
]

#: Characters of a keyword that is new. Every message that has it holds it, and no quota counts
#: that; Dovecot allows 50.
LONGEST_KEYWORD = 100


def check_number(index: Index) -> None:
    """Look whether there may be another folder; under the lock.

    Raises:
        LimitReachedError: there may not.
    """
    most = index.bounds().folders
    if most is not None and index.query("SELECT count(*) FROM folder")[0][0] >= most:
        raise LimitReachedError(f"Too many mailboxes; at most {most} are allowed")


def has_room_for_subscription(index: Index, db: sqlite3.Connection) -> bool:
    """Return whether another name may be subscribed to, in a transaction.

    Names need not be those of folders, so that nothing else bounds them.
    """
    most = index.bounds().folders
    if most is None:
        return True
    (count,) = db.execute("SELECT count(*) FROM subscription").fetchone()
    return int(count) < most


def check_subscriptions(index: Index, db: sqlite3.Connection) -> None:
    """Look whether another name may be subscribed to, in a transaction.

    Raises:
        LimitReachedError: it may not.
    """
    if not has_room_for_subscription(index, db):
        most = index.bounds().folders
        raise LimitReachedError(f"Too many subscriptions; at most {most} are allowed")


def check_depth(index: Index, name: str) -> None:
    """Look whether a folder may have a name.

    Raises:
        LimitReachedError: it has too many levels.
    """
    most = index.bounds().depth
    if most is not None and name.count("/") >= most:
        raise LimitReachedError(f"Mailbox name is too deep; at most {most} levels are allowed")


def admit_keywords(index: Index, folder: int, keywords: Iterable[str]) -> None:
    """Look whether messages of a folder may get keywords; under the lock.

    Raises:
        LimitReachedError: there would be too many different ones, or one is too long.
    """
    wanted = {keyword.lower() for keyword in keywords}
    if not wanted:
        return
    rows = index.query("SELECT name FROM keyword WHERE folder = ?", (folder,))
    known = {name.lower() for (name,) in rows}
    if any(len(keyword) > LONGEST_KEYWORD for keyword in wanted - known):
        raise LimitReachedError(f"Keyword is too long; it may have {LONGEST_KEYWORD} characters")
    most = index.bounds().keywords
    if most is not None and not wanted <= known and len(wanted | known) > most:
        raise LimitReachedError(f"Too many keywords; a mailbox may have {most}")
