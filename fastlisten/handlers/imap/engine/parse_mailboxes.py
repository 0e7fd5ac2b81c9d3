"""Parses the commands that name mailboxes: SELECT, CREATE, LIST, STATUS, quotas and their like.

Rules of this file: from a command's arguments to its event. A parameter, option or item that is not
known is refused, because its effect would be missed.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine.commands import (
    Create,
    Delete,
    GetQuota,
    GetQuotaRoot,
    List,
    Lsub,
    Qresync,
    Rename,
    Select,
    SetQuota,
    Status,
    Subscribe,
)
from fastlisten.handlers.imap.engine.mailbox_names import decode_mailbox
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner
from fastlisten.handlers.imap.engine.sequence_sets import parse_uids

__all__ = [
    "parse_create",
    "parse_delete",
    "parse_examine",
    "parse_get_quota",
    "parse_get_quota_root",
    "parse_list",
    "parse_lsub",
    "parse_mailbox",
    "parse_rename",
    "parse_select",
    "parse_set_quota",
    "parse_status",
    "parse_subscribe",
    "parse_unsubscribe",
]

_LARGEST_MODSEQ = (1 << 63) - 1

#: RFC 3501 6.3.10, and the documents that add to it.
_STATUS = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN"}
    | {"HIGHESTMODSEQ"}  # RFC 7162 3.1.7
    | {"SIZE"}  # RFC 8438
    | {"MAILBOXID"}  # RFC 8474 4.3
    | {"APPENDLIMIT"}  # RFC 7889 5
    | {"DELETED", "DELETED-STORAGE"}  # RFC 9208 4.1.4
)
_SELECT = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
_RETURN = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"})
#: What RECURSIVEMATCH can go with (RFC 5258 3.1).
_BASES = frozenset({"SUBSCRIBED", "SPECIAL-USE"})

#: RFC 6154 2.
_ROLES = {
    name.upper().encode("ascii"): name
    for name in ("All", "Archive", "Drafts", "Flagged", "Junk", "Sent", "Trash")
}


def parse_mailbox(scanner: Scanner) -> str:
    """Return the name of a mailbox."""
    return decode_mailbox(scanner.astring())


# --- SELECT, EXAMINE ------------------------------------------------------------------------------


def parse_select(scanner: Scanner) -> Select:
    """SELECT."""
    return _select(scanner, read_only=False)


def parse_examine(scanner: Scanner) -> Select:
    """EXAMINE."""
    return _select(scanner, read_only=True)


def _select(scanner: Scanner, read_only: bool) -> Select:
    mailbox = parse_mailbox(scanner)
    if scanner.at_end():
        return Select(mailbox, read_only)
    condstore = False
    qresync = None
    scanner.space()
    if scanner.open_list():
        while True:
            name = scanner.word()
            if name == b"CONDSTORE":
                condstore = True
            elif name == b"QRESYNC" and qresync is None:
                scanner.space()
                qresync = _qresync(scanner)
            else:
                raise Refused(f"Unknown parameter {name.decode('ascii')}")
            if scanner.closes():
                break
    return Select(mailbox, read_only, condstore or qresync is not None, qresync)


def _qresync(scanner: Scanner) -> Qresync:
    """Read QRESYNC's parameters (RFC 7162 7: select-param)."""
    if not scanner.open_list():
        raise Refused("Invalid QRESYNC parameters")
    uidvalidity = scanner.number()
    scanner.space()
    modseq = scanner.number(_LARGEST_MODSEQ)
    if not uidvalidity or not modseq:
        raise Refused("Invalid QRESYNC parameters")
    known = sample = None
    if not scanner.closes():
        if not scanner.next_is(b"("):
            known = parse_uids(scanner)
        if known is None or not scanner.closes():
            if not scanner.open_list():
                raise Refused("Invalid QRESYNC parameters")
            numbers = parse_uids(scanner)
            scanner.space()
            sample = (numbers, parse_uids(scanner))
            if not scanner.closes() or not scanner.closes():
                raise Refused("Invalid QRESYNC parameters")
    return Qresync(uidvalidity, modseq, known, sample)


# --- CREATE, DELETE, RENAME, SUBSCRIBE ------------------------------------------------------------


def parse_create(scanner: Scanner) -> Create:
    r"""CREATE, perhaps with ``(USE (\Sent))`` (RFC 6154 3)."""
    mailbox = parse_mailbox(scanner)
    if scanner.at_end():
        return Create(mailbox)
    roles = []
    scanner.space()
    if scanner.open_list():
        if scanner.word() != b"USE":
            raise Refused("Unknown parameter")
        scanner.space()
        if scanner.open_list():
            while True:
                use = scanner.flag()
                role = _ROLES.get(use[1:].upper()) if use.startswith(b"\\") else None
                if role is None:
                    raise Refused("Special use is not supported", "NO", "USEATTR")
                roles.append(role)
                if scanner.closes():
                    break
        if not scanner.closes():
            raise Refused("Unknown parameter")
    return Create(mailbox, tuple(roles))


def parse_delete(scanner: Scanner) -> Delete:
    """DELETE."""
    return Delete(parse_mailbox(scanner))


def parse_rename(scanner: Scanner) -> Rename:
    """RENAME."""
    old = parse_mailbox(scanner)
    scanner.space()
    return Rename(old, parse_mailbox(scanner))


def parse_subscribe(scanner: Scanner) -> Subscribe:
    """SUBSCRIBE."""
    return Subscribe(parse_mailbox(scanner))


def parse_unsubscribe(scanner: Scanner) -> Subscribe:
    """UNSUBSCRIBE."""
    return Subscribe(parse_mailbox(scanner), subscribed=False)


# --- LIST, LSUB, STATUS ---------------------------------------------------------------------------


def parse_list(scanner: Scanner) -> List:
    """LIST, also as RFC 5258 extends it."""
    select: frozenset[str] = frozenset()
    extended = False
    if scanner.next_is(b"("):
        extended = True
        select = _options(scanner, _SELECT)
        if "RECURSIVEMATCH" in select and not select & _BASES:
            raise Refused("RECURSIVEMATCH must not be the only selection option")
        scanner.space()
    reference = parse_mailbox(scanner)
    scanner.space()
    if scanner.opens():
        extended = True
        if scanner.skip(b")"):
            raise Refused("Empty list of patterns")
        patterns = [decode_mailbox(scanner.list_mailbox())]
        while not scanner.closes():
            patterns.append(decode_mailbox(scanner.list_mailbox()))
    else:
        patterns = [decode_mailbox(scanner.list_mailbox())]
    if scanner.at_end():
        return List(reference, tuple(patterns), select, extended=extended)
    scanner.space()
    if scanner.word() != b"RETURN":
        raise Refused("Unknown argument")
    scanner.space()
    returns, status = _returns(scanner)
    return List(reference, tuple(patterns), select, returns, status, extended=True)


def _options(scanner: Scanner, known: frozenset[str]) -> frozenset[str]:
    """Read a list of options in parentheses."""
    found: set[str] = set()
    if scanner.open_list():
        while True:
            name = scanner.word().decode("ascii")
            if name not in known:
                raise Refused(f"Unknown select option {name}")
            found.add(name)
            if scanner.closes():
                break
    return frozenset(found)


def _returns(scanner: Scanner) -> tuple[frozenset[str], tuple[str, ...]]:
    """Read LIST's return options; STATUS has items of its own (RFC 5819)."""
    found: set[str] = set()
    status: tuple[str, ...] = ()
    if scanner.open_list():
        while True:
            name = scanner.word().decode("ascii")
            if name not in _RETURN:
                raise Refused(f"Unknown return option {name}")
            found.add(name)
            if name == "STATUS":
                scanner.space()
                status = _status_items(scanner)
            if scanner.closes():
                break
    return frozenset(found), status


def parse_lsub(scanner: Scanner) -> Lsub:
    """LSUB."""
    reference = parse_mailbox(scanner)
    scanner.space()
    return Lsub(reference, decode_mailbox(scanner.list_mailbox()))


def parse_status(scanner: Scanner) -> Status:
    """STATUS."""
    mailbox = parse_mailbox(scanner)
    scanner.space()
    return Status(mailbox, _status_items(scanner))


def _status_items(scanner: Scanner) -> tuple[str, ...]:
    if not scanner.open_list():
        raise Refused("Empty status list")
    items = []
    while True:
        name = scanner.word().decode("ascii")
        if name not in _STATUS:
            raise Refused(f"Invalid status item {name}")
        items.append(name)
        if scanner.closes():
            return tuple(dict.fromkeys(items))


# --- quotas ---------------------------------------------------------------------------------------


def parse_get_quota(scanner: Scanner) -> GetQuota:
    """GETQUOTA."""
    return GetQuota(_root(scanner))


def parse_get_quota_root(scanner: Scanner) -> GetQuotaRoot:
    """GETQUOTAROOT."""
    return GetQuotaRoot(parse_mailbox(scanner))


def parse_set_quota(scanner: Scanner) -> SetQuota:
    """SETQUOTA."""
    root = _root(scanner)
    scanner.space()
    limits = []
    if scanner.open_list():
        while True:
            name = scanner.word().decode("ascii")
            scanner.space()
            limits.append((name, scanner.number(_LARGEST_MODSEQ)))
            if scanner.closes():
                break
    return SetQuota(root, tuple(limits))


def _root(scanner: Scanner) -> str:
    try:
        return scanner.astring().decode("utf-8")
    except ValueError:
        raise Refused("Invalid quota root", "NO") from None
