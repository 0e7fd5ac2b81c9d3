"""Rows of new messages, whatever brings them: deliveries, APPEND, COPY, MOVE.

Rules of this file: within a transaction; no files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fastlisten.mail.store.files import Inspected
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag

__all__ = ["NewMessage", "add_keywords", "insert_messages", "size_of"]

# As numbers: an operation of flags takes as long as a row.
_SEEN, _DELETED = int(Flag.SEEN), int(Flag.DELETED)


class NewMessage(NamedTuple):
    """A message that gets a UID.

    Attributes:
        name: of its file, without flags.
        bits: its flags (letters.py).
        inspected: what its file is like; None for another file of an email that is known.
        keywords: with blanks in between; stored as the folder spells them.
        email: the email's id, if it is known.
        uid: its UID, if another server has given it one; else it gets the next.
    """

    name: str
    bits: int
    inspected: Inspected | None = None
    keywords: str = ""
    email: int = 0
    uid: int = 0


def size_of(index: Index, message: NewMessage) -> int:
    """Return how many octets a message has as it is served."""
    if message.inspected is not None:
        return message.inspected.size
    rows = index.query("SELECT size FROM email WHERE id = ?", (message.email,))
    return int(rows[0][0]) if rows else 0


def insert_messages(
    index: Index,
    db: sqlite3.Connection,
    folder: int,
    messages: Sequence[NewMessage],
    *,
    synced: bool,
) -> int:
    """Insert messages, with UIDs in their order; return the first that was taken.

    Args:
        index: the account's.
        db: the transaction.
        folder: the folder's id.
        messages: at least one.
        synced: whether the transaction is.
    """
    words = sorted(
        {word for message in messages if message.keywords for word in message.keywords.split()}
    )
    spelt = {word.lower(): word for word in add_keywords(db, folder, words)}
    without = sum(not message.uid for message in messages)
    first = index.take_uids(folder, without, synced=synced)
    fresh = iter(range(first, first + without))
    uids = [message.uid or next(fresh) for message in messages]
    number = index.numbers(1 + len(messages))
    emails = [
        message.email if message.inspected is None else number + 1 + place
        for place, message in enumerate(messages)
    ]
    db.executemany(
        "INSERT INTO email (id, createseq, modseq, size, eol, date, octets, mtime, inode)"
        " VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        [
            (email, number, it.size, it.eol, it.date, it.octets, it.mtime, it.inode)
            for email, message in zip(emails, messages, strict=True)
            if (it := message.inspected) is not None
        ],
    )
    db.executemany(
        "INSERT INTO message (folder, uid, email, name, flags, keywords, createseq, modseq)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        [
            (
                folder,
                uid,
                email,
                message.name,
                message.bits,
                _spelt(message.keywords, spelt) if message.keywords else "",
                number,
            )
            for uid, email, message in zip(uids, emails, messages, strict=True)
        ],
    )
    # Not by a trigger, which would take as long for each message as its row does.
    db.execute(
        "UPDATE folder SET total = total + ?1, unseen = unseen + ?2, deleted = deleted + ?3,"
        " size = size + ?4, highmodseq = ?5, countseq = ?5 WHERE id = ?6",
        (
            len(messages),
            sum(not message.bits & _SEEN for message in messages),
            sum(bool(message.bits & _DELETED) for message in messages),
            _size_of_all(db, messages),
            number,
            folder,
        ),
    )
    return first


def _size_of_all(db: sqlite3.Connection, messages: Sequence[NewMessage]) -> int:
    size, known = 0, []
    for message in messages:
        if message.inspected is not None:
            size += message.inspected.size
        else:
            known.append(message.email)
    if known:
        ((more,),) = db.execute(
            "SELECT total(size) FROM json_each(?) JOIN email ON email.id = value",
            (json.dumps(known),),
        )
        size += int(more)
    return size


def _spelt(keywords: str, spelt: Mapping[str, str]) -> str:
    return " ".join(sorted({spelt[word.lower()] for word in keywords.split()}))


def add_keywords(db: sqlite3.Connection, folder: int, keywords: Iterable[str]) -> list[str]:
    """Note keywords of a folder; return them as they were first spelt there."""
    spelt = []
    for keyword in keywords:
        db.execute("INSERT OR IGNORE INTO keyword VALUES (?, ?)", (folder, keyword))
        (name,) = db.execute(
            "SELECT name FROM keyword WHERE folder = ? AND name = ?", (folder, keyword)
        ).fetchone()
        spelt.append(name)
    return spelt
