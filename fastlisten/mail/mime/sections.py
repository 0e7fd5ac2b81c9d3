"""The sections of a message that IMAP's FETCH names: which octets of the file they are.

    part = find_part(root, (1, 2))                  BODY[1.2]
    section = section_of(root, (1, 2), MIME)        BODY[1.2.MIME]
    section = select_fields(header, start, names)   BODY[HEADER.FIELDS (...)], of a header's octets
    b"".join(pieces(read, section, 0, 1000))        its octets, here those of <0.1000>

Rules of this file: RFC 3501 6.4.5; no notation of IMAP, and octets of the file come from a
function. What does not exist is None. Octets are given out as clients see them: where the file's
lines end with LF, with CRLFs. `read` reads what was parsed: if that is the served form of the file
already, so are the octets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from fastlisten.mail.mime.header_fields import fields
from fastlisten.mail.mime.structure import Part

__all__ = [
    "Content",
    "Read",
    "Section",
    "find_part",
    "pieces",
    "section_of",
    "select_fields",
    "with_crlf",
]

#: Octets of the file that are read at once.
PIECE = 64 * 1024

#: Returns octets of the file: offset and number, which is at most `PIECE`. It returns fewer only if
#: the file has become shorter.
Read = Callable[[int, int], bytes]

_BLANK = re.compile(rb"(?:\A|(?<=\n))\r?\n\Z")


class Content(Enum):
    """What is wanted of a message or a part.

    Attributes:
        WHOLE: the message with its header; of a part, its body without header (``BODY[1]``).
        HEADER, TEXT: header and body of a message, also of one in a part (``BODY[1.HEADER]``).
        MIME: the header of a part.
    """

    WHOLE = auto()
    HEADER = auto()
    TEXT = auto()
    MIME = auto()


@dataclass(slots=True)
class Section:
    """Octets of a message.

    Attributes:
        ranges: where they begin and end in the file, in their order.
        size: how many they are as clients see them.
    """

    ranges: tuple[tuple[int, int], ...]
    size: int


def find_part(root: Part, path: Sequence[int]) -> Part | None:
    """Return the part that numbers lead to, each beginning at 1; the message for no numbers.

    A message that is not a multipart has one part, 1: itself. The parts of a message within a part
    are numbered as if that were not there: 1.2 is the second part of the message in part 1, if
    that is a multipart.
    """
    part = root
    message = True  # the next number counts the parts of a message
    for number in path:
        if not message and part.is_message:
            part = part.children[0]
            message = True
        if part.is_multipart:
            if not 1 <= number <= len(part.children):
                return None
            part = part.children[number - 1]
        elif number != 1 or not message:
            return None
        message = False
    return part


def section_of(root: Part, path: Sequence[int], content: Content) -> Section | None:
    """Return the octets of a section, or None if there is no such section.

    ``HEADER.FIELDS`` exists where `Content.HEADER` does; `select_fields` takes it from there.
    """
    part = find_part(root, path)
    if part is None:
        return None
    if content is Content.MIME:
        return _header(part) if path else None
    if content is Content.WHOLE:
        return (
            _body(part)
            if path
            else Section(((part.header, part.end),), part.header_size + part.size)
        )
    if path:
        if not part.is_message:
            return None
        part = part.children[0]
    return _header(part) if content is Content.HEADER else _body(part)


def select_fields(
    header: bytes,
    start: int,
    names: Collection[bytes],
    *,
    inverted: bool = False,
    lf: bool = False,
) -> Section:
    """Return some fields of a header, in its order, and the blank line after it if it has one.

    Args:
        header: its octets.
        start: their offset in the file.
        names: of the wanted fields, in lower case.
        inverted: whether everything but these fields is wanted (``HEADER.FIELDS.NOT``), lines that
            are no fields included.
        lf: whether the file's lines end with LF (the header's `header_bare` is not 0).
    """
    ranges: list[tuple[int, int]] = []
    blank = _BLANK.search(header)
    end = len(header) if blank is None else blank.start()
    kept = 0  # for inverted: what is wanted begins here
    for field in fields(header, 0, end):
        if field.name in names:
            _add(ranges, (kept, field.start) if inverted else (field.start, field.end))
            kept = field.end
    _add(ranges, (kept if inverted else end, len(header)))
    size = sum(stop - begin for begin, stop in ranges)
    if lf:
        for begin, stop in ranges:
            size += header.count(b"\n", begin, stop) - header.count(b"\r\n", begin, stop)
    return Section(tuple((start + begin, start + stop) for begin, stop in ranges), size)


def pieces(
    read: Read, section: Section, first: int = 0, count: int | None = None
) -> Iterator[bytes]:
    """Yield the octets of a section as clients see them.

    Args:
        read: reads from the file.
        section: of a message as it lies there.
        first, count: only `count` octets from octet `first` on (``<first.count>``); all that follow
            if `count` is None.

    Raises:
        OSError: from `read`, or because the file is shorter than it was.
    """
    left = section.size - first if count is None else min(count, section.size - first)
    as_it_is = sum(end - start for start, end in section.ranges) == section.size
    for start, end in section.ranges:
        if left <= 0:
            return
        if not as_it_is:
            read_pieces = _crlf_pieces(read, start, end)
        elif first >= end - start:
            first -= end - start
            continue
        else:
            read_pieces = _read_pieces(read, start + first, min(end, start + first + left))
            first = 0
        for piece in read_pieces:
            if first >= len(piece):
                first -= len(piece)
                continue
            yield piece[first : first + left]
            left -= len(piece) - first
            first = 0
            if left <= 0:
                return


def _read_pieces(read: Read, start: int, end: int) -> Iterator[bytes]:
    """Yield octets of the file as they are."""
    while start < end:
        piece = read(start, min(PIECE, end - start))
        if not piece:
            raise OSError("the message has become shorter")
        yield piece
        start += len(piece)


def _crlf_pieces(read: Read, start: int, end: int) -> Iterator[bytes]:
    """Yield octets of the file with CRLF for each bare LF."""
    after_cr = False
    for piece in _read_pieces(read, start, end):
        if after_cr and piece.startswith(b"\n"):
            yield b"\n" + with_crlf(piece[1:])
        else:
            yield with_crlf(piece)
        after_cr = piece.endswith(b"\r")


def with_crlf(piece: bytes) -> bytes:
    """Return a piece with CRLF for each bare LF."""
    if b"\r" in piece:
        piece = piece.replace(b"\r\n", b"\n")
    return piece.replace(b"\n", b"\r\n")


def _add(ranges: list[tuple[int, int]], new: tuple[int, int]) -> None:
    """Add a range, joined to the last one if it follows it, unless it is empty."""
    if new[0] == new[1]:
        return
    if ranges and ranges[-1][1] == new[0]:
        ranges[-1] = (ranges[-1][0], new[1])
    else:
        ranges.append(new)


def _header(part: Part) -> Section:
    return Section(((part.header, part.body),), part.header_size)


def _body(part: Part) -> Section:
    return Section(((part.body, part.end),), part.size)
