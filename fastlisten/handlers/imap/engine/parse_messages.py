"""Parses the commands that name messages: FETCH, STORE, COPY, MOVE, EXPUNGE.

Rules of this file: from a command's arguments to its event.
"""

from __future__ import annotations

from typing import Literal

from fastlisten.handlers.imap.engine.commands import Copy, Expunge, Fetch, Move, Store
from fastlisten.handlers.imap.engine.fetch_items import parse_items
from fastlisten.handlers.imap.engine.flags import parse_flag, parse_flags
from fastlisten.handlers.imap.engine.mailbox_names import decode_mailbox
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner
from fastlisten.handlers.imap.engine.sequence_sets import parse_set

__all__ = ["parse_copy", "parse_expunge", "parse_fetch", "parse_move", "parse_store"]

_LARGEST_MODSEQ = (1 << 63) - 1

_STORES: dict[bytes, tuple[Literal["+", "-", "="], bool]] = {
    b"FLAGS": ("=", False),
    b"FLAGS.SILENT": ("=", True),
    b"+FLAGS": ("+", False),
    b"+FLAGS.SILENT": ("+", True),
    b"-FLAGS": ("-", False),
    b"-FLAGS.SILENT": ("-", True),
}


def parse_fetch(scanner: Scanner, uid: bool) -> Fetch:
    """FETCH, UID FETCH."""
    messages = parse_set(scanner)
    scanner.space()
    items = parse_items(scanner)
    changed_since = None
    vanished = False
    if not scanner.at_end():
        changed_since, vanished = _fetch_modifiers(scanner)
        if vanished and not uid:
            raise Refused("VANISHED needs UID FETCH")
        if vanished and changed_since is None:
            raise Refused("VANISHED needs CHANGEDSINCE")
        if changed_since is not None and "MODSEQ" not in items:
            items = (*items, "MODSEQ")
    if uid and "UID" not in items:
        items = ("UID", *items)
    return Fetch(uid, messages, items, changed_since, vanished)


def _fetch_modifiers(scanner: Scanner) -> tuple[int | None, bool]:
    """Read CHANGEDSINCE and VANISHED (RFC 7162 3.1.4.1, 3.2.6)."""
    changed_since = None
    vanished = False
    scanner.space()
    if not scanner.open_list():
        raise Refused("Empty list of modifiers")
    while True:
        name = scanner.word()
        if name == b"CHANGEDSINCE" and changed_since is None:
            scanner.space()
            changed_since = scanner.number(_LARGEST_MODSEQ)
        elif name == b"VANISHED":
            vanished = True
        else:
            raise Refused(f"Unknown FETCH modifier {name.decode('ascii')}")
        if scanner.closes():
            return changed_since, vanished


def parse_store(scanner: Scanner, uid: bool) -> Store:
    """STORE, UID STORE."""
    messages = parse_set(scanner)
    scanner.space()
    unchanged_since = None
    if scanner.next_is(b"("):
        if not scanner.open_list():
            raise Refused("Empty list of modifiers")
        if scanner.word() != b"UNCHANGEDSINCE":
            raise Refused("Unknown STORE modifier")
        scanner.space()
        unchanged_since = scanner.number(_LARGEST_MODSEQ)
        if not scanner.closes():
            raise Refused("Unknown STORE modifier")
        scanner.space()
    name = scanner.word()
    how = _STORES.get(name)
    if how is None:
        raise Refused(f"Invalid item {name.decode('ascii')}")
    scanner.space()
    if scanner.next_is(b"("):
        flags = parse_flags(scanner)
    else:
        found = [parse_flag(scanner)]
        while not scanner.at_end():
            scanner.space()
            found.append(parse_flag(scanner))
        flags = tuple(dict.fromkeys(found))
    return Store(uid, messages, how[0], flags, how[1], unchanged_since)


def parse_copy(scanner: Scanner, uid: bool) -> Copy:
    """COPY, UID COPY."""
    messages = parse_set(scanner)
    scanner.space()
    return Copy(uid, messages, decode_mailbox(scanner.astring()))


def parse_move(scanner: Scanner, uid: bool) -> Move:
    """MOVE, UID MOVE (RFC 6851)."""
    messages = parse_set(scanner)
    scanner.space()
    return Move(uid, messages, decode_mailbox(scanner.astring()))


def parse_expunge(scanner: Scanner, uid: bool) -> Expunge:
    """EXPUNGE, UID EXPUNGE (RFC 4315)."""
    return Expunge(parse_set(scanner) if uid else None)
