"""What has happened in a folder since a modification sequence.

Rules of this file: it only reads, without the lock, but for `prune`. What is gone is known for 30
days, or 100,000 rows; before that, a client has to compare everything.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from fastlisten.mail.store.folder_state import SLICE, Loaded
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Changes, Flag, FolderNotFoundError, MessageState
from fastlisten.mail.store.letters import SYSTEM
from fastlisten.mail.store.schema import Gone

__all__ = ["KEPT_ROWS", "KEPT_SECONDS", "MANY", "are_many", "changes", "loaded", "prune"]

#: How long is known what is gone: the longest that a device of somebody who reads mail is away.
KEPT_SECONDS = 30 * 86400

#: How many rows of `gone` are kept: some 5 MB.
KEPT_ROWS = 100_000


#: What is gone, also of what came since: a client that has seen that may still say what it knew
#: before (RFC 7162 3.2.10).
_GONE = "SELECT uid FROM gone WHERE type = ? AND folder = ? AND modseq > ? ORDER BY uid"

#: Changes that take too long to be applied on the loop: some 10 ms.
MANY = 2_000


def changes(index: Index, folder: int, since: int, *, whole: bool = False) -> Changes:
    """Return what has happened after a modification sequence.

    Args:
        index: the account's.
        folder: the folder's id.
        since: a modification sequence; 0: from the beginning.
        whole: all other messages count as changed, so that what is left out is gone.

    Raises:
        FolderNotFoundError: the folder has been deleted.
    """
    with index.snapshot() as db:
        state = db.execute(
            "SELECT max(highmodseq, floor), floor, pruned, uidnext FROM folder, state"
            " WHERE folder.id = ?",
            (folder,),
        ).fetchone()
        if state is None:
            raise FolderNotFoundError("Mailbox has been deleted")
        cursor, floor, pruned, uidnext = state
        if cursor == since >= max(floor, pruned) and not whole:
            return Changes(cursor, uidnext, [], [], [])
        rows = db.execute(
            # By itself, SQLite would go through all messages of the folder.
            "SELECT uid, flags, keywords, max(modseq, ?3), createseq"
            " FROM message INDEXED BY message_modseq"
            " WHERE folder = ?1 AND modseq > ?2 ORDER BY uid",
            # What came before the floor may have been told otherwise: all of it counts as changed.
            (folder, 0 if since < floor or whole else since, floor),
        )
        arrived: list[MessageState] = []
        changed: list[MessageState] = []
        while piece := rows.fetchmany(SLICE):
            arrived += [_state(row) for row in piece if row[4] > since]
            changed += [_state(row) for row in piece if row[4] <= since]
        complete = since >= pruned or since == 0
        gone = db.execute(_GONE, (Gone.MESSAGE, folder, since)).fetchall()
    return Changes(
        cursor=cursor,
        uidnext=uidnext,
        arrived=arrived,
        changed=changed,
        gone=[uid for (uid,) in gone] if complete else [],
        complete=complete,
    )


def loaded(index: Index, folder: int, since: int = 0) -> Loaded:
    """Return all messages of a folder, and what is gone since a modification sequence.

    Raises:
        FolderNotFoundError: the folder has been deleted.
    """
    with index.snapshot() as db:
        state = db.execute(
            "SELECT max(highmodseq, floor), uidnext, floor FROM folder, state WHERE folder.id = ?",
            (folder,),
        ).fetchone()
        if state is None:
            raise FolderNotFoundError("Mailbox has been deleted")
        cursor, uidnext, floor = state
        gone = db.execute(_GONE, (Gone.MESSAGE, folder, since)).fetchall() if since else ()
        found = Loaded(cursor, uidnext, [uid for (uid,) in gone])
        last = 0
        while piece := _columns(db, folder, last, floor):
            last = found.add(*piece)
    return found


def _columns(
    db: sqlite3.Connection, folder: int, last: int, floor: int
) -> tuple[list[int], list[int], list[int], list[tuple[int, str]]] | None:
    """Return UIDs, modseqs, flags and keywords of the next messages of a folder.

    SQLite writes each column as one text, which costs less than an object for each message.
    """
    rows = db.execute(
        "SELECT group_concat(uid), group_concat(modseq), group_concat(flags), total(words) FROM"
        " (SELECT uid, max(modseq, ?1) AS modseq, flags & ?2 AS flags, keywords != '' AS words"
        " FROM message WHERE folder = ?3 AND uid > ?4 ORDER BY uid LIMIT ?5)",
        (floor, SYSTEM, folder, last, SLICE),
    )
    *texts, words = rows.fetchone()
    if texts[0] is None:
        return None
    uids, modseqs, flags = (json.loads(f"[{text}]") for text in texts)
    keywords = []
    if words:
        keywords = db.execute(
            "SELECT uid, keywords FROM message"
            " WHERE folder = ? AND uid > ? AND uid <= ? AND keywords != ''",
            (folder, last, uids[-1]),
        ).fetchall()
    return uids, modseqs, flags, keywords


def are_many(index: Index, folder: int, since: int) -> bool:
    """Return whether so much has happened that it takes less to load the whole folder."""
    rows = index.query(
        "SELECT max(pruned, floor) <= ?2 AND"
        " (SELECT count(*) FROM"
        " (SELECT 1 FROM message INDEXED BY message_modseq"
        " WHERE folder = ?1 AND modseq > ?2 LIMIT ?3))"
        " + (SELECT count(*) FROM"
        " (SELECT 1 FROM gone WHERE type = ?4 AND folder = ?1 AND modseq > ?2 LIMIT ?3)) >= ?3"
        " FROM state",
        (folder, since, MANY, Gone.MESSAGE),
    )
    return bool(rows[0][0])


def _state(row: Sequence[Any]) -> MessageState:
    uid, flags, keywords, modseq, _ = row
    return MessageState(uid, Flag(flags & SYSTEM), tuple(keywords.split()), modseq)


def prune(index: Index) -> None:
    """Forget what went too long ago; a modification sequence is a time in microseconds."""
    before = (time.time_ns() // 1000) - KEPT_SECONDS * 1_000_000
    more = "SELECT modseq FROM gone ORDER BY modseq DESC LIMIT 1 OFFSET ?"
    oldest = index.query("SELECT min(modseq) FROM gone")[0][0]
    rows = index.query(more, (KEPT_ROWS,))
    if oldest is None or (oldest > before and not rows):
        return
    with index.locked(), index.transaction() as db:
        rows = db.execute(more, (KEPT_ROWS,)).fetchall()
        last = max(before, rows[0][0] if rows else 0)
        (pruned,) = db.execute("SELECT max(modseq) FROM gone WHERE modseq <= ?", (last,)).fetchone()
        if pruned is not None:
            db.execute("DELETE FROM gone WHERE modseq <= ?", (last,))
            db.execute("UPDATE state SET pruned = max(pruned, ?)", (pruned,))
