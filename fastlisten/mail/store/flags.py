"""STORE: flags and keywords of messages.

Rules of this file: blocking; it takes the lock, slice by slice. Flags are in the names of files, so
they are committed with the renames that they imply (pending.py); keywords are in the index only.
A message that does not change keeps its modification sequence (RFC 7162 3.1.3 leaves that open).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fastlisten.mail.store.admission import admit_keywords
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import NO_FLAGS, Flag, MessageState, Stored, StoreMode
from fastlisten.mail.store.letters import SYSTEM
from fastlisten.mail.store.pending import add, box_of, finish
from fastlisten.mail.store.rows import add_keywords
from fastlisten.mail.store.schema import Op
from fastlisten.mail.store.selection import FileFinder, MessageRow, select, slices

__all__ = ["check_keywords", "state_of", "store"]

#: An atom (RFC 3501 9, flag-keyword).
_KEYWORD = re.compile(r"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")


def check_keywords(keywords: Iterable[str]) -> None:
    """Refuse what is no keyword.

    Raises:
        ValueError: one of them is no atom.
    """
    for keyword in keywords:
        if not _KEYWORD.fullmatch(keyword):
            raise ValueError(f"{keyword!r} is not a keyword")


def state_of(row: MessageRow) -> MessageState:
    """Return what a protocol is told about a message."""
    return MessageState(row.uid, Flag(row.bits & SYSTEM), tuple(row.keywords.split()), row.modseq)


def store(
    index: Index,
    folder: int,
    uids: Sequence[int],
    mode: StoreMode,
    flags: Flag = NO_FLAGS,
    keywords: Sequence[str] = (),
    unchanged_since: int | None = None,
) -> Stored:
    """Change flags and keywords; arguments and result as `interface.Folder.store` has them.

    Raises:
        OSError: a file could not be renamed; its flags are what they were.
        ValueError: something is no keyword.
    """
    check_keywords(keywords)
    changed: list[MessageState] = []
    modified: list[int] = []
    for piece in slices(uids):
        with index.locked():
            one = _store(index, folder, piece, mode, int(flags), keywords, unchanged_since)
        changed += one.changed
        modified += one.modified
    return Stored(changed, modified)


def _store(
    index: Index,
    folder: int,
    uids: Sequence[int],
    mode: StoreMode,
    flags: int,
    keywords: Sequence[str],
    unchanged_since: int | None,
) -> Stored:
    box = box_of(index, folder)
    if box is None:
        return Stored(())
    more = 0 if mode is StoreMode.REMOVE else flags & SYSTEM
    less = {StoreMode.ADD: 0, StoreMode.REMOVE: flags & SYSTEM, StoreMode.SET: SYSTEM}[mode]
    finder = FileFinder(box)
    modified: list[int] = []
    changes: list[tuple[MessageRow, int, str]] = []
    work: list[tuple[str, str]] = []
    spelt: list[str] | None = None
    for row in select(index, folder, uids):
        if unchanged_since is not None and row.modseq > unchanged_since:
            modified.append(row.uid)
            continue
        found, certain = finder.find(row.name, row.bits)
        if found is None and certain:
            continue  # removed by another program; the next look takes note of it
        bits = row.bits if found is None else found.bits
        wanted = bits & ~less | more
        if mode is not StoreMode.REMOVE and keywords and spelt is None:
            admit_keywords(index, folder, keywords)
            with index.transaction() as db:
                spelt = add_keywords(db, folder, keywords)
        words = _with_keywords(row.keywords, mode, keywords if spelt is None else spelt)
        if (wanted, words) != (row.bits, row.keywords):
            changes.append((row, wanted, words))
        if wanted != bits:
            work.append((row.name, f"{bits},{more},{less}"))
    if not changes and not work:
        return Stored((), modified)
    with index.transaction() as db:
        number = index.numbers(1)
        for row, wanted, words in changes:
            db.execute(
                "UPDATE message SET flags = ?, keywords = ?, modseq = ?"
                " WHERE folder = ? AND uid = ?",
                (wanted, words, number, folder, row.uid),
            )
        for name, target in work:
            add(db, folder, name, Op.FLAGS, target)
    if work:
        for error in finish(index).values():
            raise error
    states = select(index, folder, [row.uid for row, _, _ in changes])
    return Stored([state_of(row) for row in states], modified)


def _with_keywords(text: str, mode: StoreMode, keywords: Sequence[str]) -> str:
    """Return a message's keywords after a change; case does not matter."""
    now = {} if mode is StoreMode.SET else {word.lower(): word for word in text.split()}
    for word in keywords:
        if mode is StoreMode.REMOVE:
            now.pop(word.lower(), None)
        else:
            now.setdefault(word.lower(), word)
    return " ".join(sorted(now.values()))
