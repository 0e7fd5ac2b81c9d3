"""What FETCH can ask for (RFC 3501 6.4.5, RFC 7162, RFC 8474).

Rules of this file: data and parsing. What an item's response is labelled with is made here, so that
writing a response needs no knowledge of the request.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import ASTRING_ATOM, Scanner

__all__ = ["FetchItem", "Section", "parse_items"]

Attribute = Literal[
    "BODY", "BODYSTRUCTURE", "EMAILID", "ENVELOPE", "FLAGS", "INTERNALDATE", "MODSEQ",
    "RFC822.SIZE", "THREADID", "UID",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """Octets of a message.

    Attributes:
        label: what the response calls it, as in ``BODY[1.MIME]<0>``.
        part: the numbers of the part; empty for the whole message.
        text: ``""`` for all of it, HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME.
        fields: the names of HEADER.FIELDS and HEADER.FIELDS.NOT, as the client wrote them.
        partial: offset and most octets; None for all.
        peek: the message does not become seen.
    """

    label: bytes
    part: tuple[int, ...] = ()
    text: Literal["", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"] = ""
    fields: tuple[bytes, ...] = ()
    partial: tuple[int, int] | None = None
    peek: bool = False


FetchItem = Attribute | Section

_ATTRIBUTES: dict[bytes, FetchItem] = {
    b"BODY": "BODY",
    b"BODYSTRUCTURE": "BODYSTRUCTURE",
    b"EMAILID": "EMAILID",
    b"ENVELOPE": "ENVELOPE",
    b"FLAGS": "FLAGS",
    b"INTERNALDATE": "INTERNALDATE",
    b"MODSEQ": "MODSEQ",
    b"RFC822.SIZE": "RFC822.SIZE",
    b"THREADID": "THREADID",
    b"UID": "UID",
    b"RFC822": Section(b"RFC822"),
    b"RFC822.HEADER": Section(b"RFC822.HEADER", text="HEADER", peek=True),
    b"RFC822.TEXT": Section(b"RFC822.TEXT", text="TEXT"),
    # Of RFC 1730, and RFC 2060 has them no more; Outlook asks for them still.
    b"RFC822.PEEK": Section(b"RFC822", peek=True),
    b"RFC822.TEXT.PEEK": Section(b"RFC822.TEXT", text="TEXT", peek=True),
}

_FAST: tuple[FetchItem, ...] = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")
_MACROS: dict[bytes, tuple[FetchItem, ...]] = {
    b"ALL": (*_FAST, "ENVELOPE"),
    b"FAST": _FAST,
    b"FULL": (*_FAST, "ENVELOPE", "BODY"),
}

_TEXTS: dict[bytes, Literal["", "HEADER", "TEXT", "MIME"]] = {
    b"": "",
    b"HEADER": "HEADER",
    b"MIME": "MIME",
    b"TEXT": "TEXT",
}

_NAME = re.compile(rb"[A-Za-z0-9.]++")
_SECTION = re.compile(
    rb"((?:[1-9][0-9]{0,9}+(?:\.[1-9][0-9]{0,9}+)*+(?:\.(?=[A-Za-z]))?+)?+)"
    rb"(HEADER\.FIELDS(?:\.NOT)?|HEADER|TEXT|MIME|)",
    re.IGNORECASE,
)
_PARTIAL = re.compile(rb"<([0-9]{1,19})\.([0-9]{1,19})>")

#: No message has as many octets.
_MOST = (1 << 63) - 1

#: What clients ask for is nearly always the same few lists. Longer ones, and those with literals or
#: modifiers, are not kept.
_KEPT = 256
_LONGEST_KEPT = 512


def parse_items(scanner: Scanner) -> tuple[FetchItem, ...]:
    """Read what FETCH asks for: a macro, an item or a list of items.

    Raises:
        Refused: there is none, or an item is not known.
    """
    data, position = scanner.data, scanner.position
    rest = data[position:]
    if len(rest) <= _LONGEST_KEPT and b"{" not in rest and b"SINCE" not in rest.upper():
        scanner.position = len(data)
        return _kept_items(rest)
    return _items(scanner)


@functools.lru_cache(maxsize=_KEPT)
def _kept_items(text: bytes) -> tuple[FetchItem, ...]:
    scanner = Scanner(text)
    items = _items(scanner)
    scanner.end()
    return items


def _items(scanner: Scanner) -> tuple[FetchItem, ...]:
    if scanner.opens():
        if scanner.skip(b")"):
            raise Refused("Empty list of items")
        items = [_item(scanner)]
        while not scanner.closes():
            items.append(_item(scanner))
        return tuple(dict.fromkeys(items))
    start = scanner.position
    name = scanner.match(_NAME)
    macro = _MACROS.get(name[0].upper()) if name is not None else None
    if macro is not None:
        return macro
    scanner.position = start
    return (_item(scanner),)


def _item(scanner: Scanner) -> FetchItem:
    match = scanner.match(_NAME)
    if match is None:
        raise Refused("Invalid item")
    name = match[0].upper()
    if scanner.next_is(b"["):
        if name == b"BODY":
            return _section(scanner, peek=False)
        if name == b"BODY.PEEK":
            return _section(scanner, peek=True)
        raise Refused("Invalid item")
    item = _ATTRIBUTES.get(name)
    if item is None:
        raise Refused(f"Unknown parameter {name.decode('ascii')}")
    return item


def _section(scanner: Scanner, peek: bool) -> Section:
    scanner.skip(b"[")
    match = scanner.match(_SECTION)
    assert match is not None
    numbers, name = match[1].rstrip(b"."), match[2].upper()
    part = tuple(map(int, numbers.split(b"."))) if numbers else ()
    if (not name and match[1].endswith(b".")) or (name == b"MIME" and not part):
        raise Refused("Invalid section")
    if part and max(part) > 0xFFFFFFFF:
        raise Refused("Invalid section")
    fields: tuple[bytes, ...] = ()
    label = match[1] + name
    if name.startswith(b"HEADER.FIELDS"):
        scanner.space()
        fields = _fields(scanner)
        label += b" (%b)" % b" ".join(map(_written_field, fields))
    if not scanner.skip(b"]"):
        raise Refused("Invalid section")
    partial = None
    label = b"BODY[%b]" % label
    if scanner.next_is(b"<"):
        bounds = scanner.match(_PARTIAL)
        if bounds is None:
            raise Refused("Invalid partial")
        partial = (int(bounds[1]), int(bounds[2]))
        if max(partial) > _MOST or not partial[1]:
            raise Refused("Invalid partial")
        label += b"<%d>" % partial[0]
    if name == b"HEADER.FIELDS":
        return Section(label, part, "HEADER.FIELDS", fields, partial, peek)
    if name == b"HEADER.FIELDS.NOT":
        return Section(label, part, "HEADER.FIELDS.NOT", fields, partial, peek)
    return Section(label, part, _TEXTS[name], fields, partial, peek)


def _fields(scanner: Scanner) -> tuple[bytes, ...]:
    if not scanner.open_list():
        raise Refused("Empty list of header fields")
    fields = [_field(scanner)]
    while not scanner.closes():
        fields.append(_field(scanner))
    return tuple(fields)


def _field(scanner: Scanner) -> bytes:
    name = scanner.astring()
    # RFC 5322 3.6.8. Others cannot be in a message, nor stand in a label.
    if not name or not name.isascii() or b":" in name or not name.decode("ascii").isprintable():
        raise Refused("Invalid header field name")
    return name


def _written_field(name: bytes) -> bytes:
    if ASTRING_ATOM.fullmatch(name):
        return name
    return b'"%b"' % name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
