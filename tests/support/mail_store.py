"""Accounts of the store for tests: indexes, deliveries, and what must be true of files and rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.absorb import Looked, look
from fastlisten.mail.store.files import Listing
from fastlisten.mail.store.folders import FolderRow, discover, find
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Facts
from fastlisten.mail.store.pending import box_of, finish
from fastlisten.mail.store.reading import known_files
from support.waiting import PATIENCE

__all__ = [
    "check_account",
    "compared_look",
    "deliver",
    "facts",
    "inbox",
    "index_of",
    "rows_of",
    "settled_look",
    "uids_of",
]


@contextmanager
def index_of(root: Path | str) -> Iterator[Index]:
    """Open the index of an account, with its folders, for the length of a block."""
    index = Index(str(root), finish)
    try:
        discover(index)
        yield index
    finally:
        index.close()


def facts(index: Index, folder: int, uids: Sequence[int]) -> list[Facts]:
    """Return what the index says of messages."""
    return [known.facts for known in known_files(index, folder, uids)]


def inbox(index: Index) -> FolderRow:
    return find(index, "INBOX")


def deliver(box: Maildir | str, content: bytes = b"Subject: x\r\n\r\nx\r\n", name: str = "") -> str:
    """Put a message into new/, as a delivery does."""
    box = Maildir(box) if isinstance(box, str) else box
    if not os.path.isdir(box.tmp):
        box.prepare()
    name = name or unique_name()
    staged = Path(box.tmp) / name
    staged.write_bytes(content)
    os.rename(staged, f"{box.new}/{name}")
    return name


def settled_look(index: Index, folder: int, *, thorough: bool = False) -> Looked:
    """Look until it is certain what is missing, and nothing is pending."""
    total = Looked()
    end = time.monotonic() + PATIENCE
    while True:
        one = look(index, folder, thorough=thorough)
        total.arrived += one.arrived
        total.changed += one.changed
        total.gone += one.gone
        if not one.again and not index.query("SELECT 1 FROM pending"):
            return total
        assert time.monotonic() < end, index.query("SELECT * FROM pending")
        time.sleep(0.005)  # directories have to be unchanged for a while


def compared_look(index: Index, folder: int) -> None:
    """Look until the time of cur/ has been noted as compared, and a listing would be settled."""
    box = box_of(index, folder)
    assert box is not None
    end = time.monotonic() + PATIENCE
    while not Listing(box).settled or index.query(
        "SELECT seen_mtime FROM folder WHERE id = ?", (folder,)
    ) != [(-os.stat(box.cur).st_mtime_ns,)]:
        look(index, folder, first=True)
        assert time.monotonic() < end
        time.sleep(0.005)  # a directory has to be unchanged for a while


def rows_of(index: Index, folder: int) -> list[Any]:
    """Return UID, name, flags and keywords of all messages, in order."""
    return index.query(
        "SELECT uid, name, flags, keywords FROM message WHERE folder = ? ORDER BY uid", (folder,)
    )


def uids_of(index: Index, folder: int) -> dict[str, int]:
    """Return the UIDs of a folder, by name."""
    return {name: uid for uid, name, _, _ in rows_of(index, folder)}


def check_account(index: Index) -> None:
    """Assert that index and files agree in everything, once all looks have been made."""
    assert index.query("PRAGMA integrity_check") == [("ok",)]
    assert index.query("SELECT * FROM pending") == []
    ((counter,),) = index.query("SELECT counter FROM state")
    folders = index.query(
        "SELECT id, uidnext, highmodseq, total, unseen, deleted, size FROM folder"
    )
    for folder, uidnext, highmodseq, *sums in folders:
        box = box_of(index, folder)
        assert box is not None
        files = Listing(box)
        assert files.doubles == []
        rows = rows_of(index, folder)
        assert {(found.name, found.bits) for found in files.files.values()} == {
            (name, flags) for _, name, flags, _ in rows
        }
        assert not any(found.new for found in files.files.values())
        assert all(0 < uid < uidnext for uid, *_ in rows)
        assert [tuple(sums)] == index.query(
            "SELECT count(*), coalesce(sum((flags & 1) = 0), 0),"
            " coalesce(sum((flags & 8) != 0), 0), coalesce(sum(size), 0)"
            " FROM message JOIN email ON email.id = message.email WHERE folder = ?",
            (folder,),
        )
        assert highmodseq <= counter
        ((last,),) = index.query(
            "SELECT coalesce(max(modseq), 0) FROM message WHERE folder = ?", (folder,)
        )
        assert last <= highmodseq
        twice = index.query(
            "SELECT uid FROM gone WHERE type = 1 AND folder = ?1 AND uid IN"
            " (SELECT uid FROM message WHERE folder = ?1)",
            (folder,),
        )
        assert twice == []
    orphans = index.query("SELECT id FROM email WHERE id NOT IN (SELECT email FROM message)")
    assert orphans == []
    assert index.query("SELECT 1 FROM message WHERE folder NOT IN (SELECT id FROM folder)") == []
