"""The fields of a header: where it ends, where its fields are, their values unfolded.

Rules of this file: the form of a header (RFC 5322 2.2, with the obsolete space before the colon of
4.5.1), not the meaning of its fields. A line without a colon is no field, and a header goes on
after it until its blank line, as Dovecot has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

__all__ = ["Field", "Octets", "fields", "header_end", "unfold", "values"]

#: A message, whole.
Octets = bytes | mmap

_BLANK_LINE = re.compile(rb"\n\r?\n")
_FIELD_END = re.compile(rb"\n(?![ \t])|\Z")
_FIELD = re.compile(rb"([^\x00-\x20:][^\n:]*?)[ \t]*:")
_LINE_BREAK = re.compile(rb"\r?\n")


class Field(NamedTuple):
    """A field of a header; offsets are those of the octets that were searched.

    Attributes:
        name: in lower case.
        start, end: the field with the line ends in it and after it.
        value: offset of the octet after the colon.
    """

    name: bytes
    start: int
    value: int
    end: int


def header_end(data: Octets, start: int, limit: int) -> int:
    """Return where the header ends that begins at `start`: after its blank line, or at `limit`.

    Args:
        data: the message.
        start: the first octet of the header, at the beginning of a line.
        limit: where it ends at the latest.
    """
    if start == 0:
        if data[:1] == b"\n":
            return 1
        if data[:2] == b"\r\n":
            return 2
    match = _BLANK_LINE.search(data, max(start - 1, 0), limit)
    return limit if match is None else match.end()


def fields(data: Octets, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the header in ``data[start:end]``, in their order."""
    while start < end:
        # `\Z` matches at `end`, so there always is a match.
        found = _FIELD_END.search(data, start, end)
        stop = end if found is None else found.end()
        match = _FIELD.match(data, start, stop)
        if match is not None:
            yield Field(match[1].lower(), start, match.end(), stop)
        start = stop


def values(header: bytes, pattern: re.Pattern[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and value of those fields of a header that a pattern finds, in their order.

    This is faster than `fields`, which looks at all of them.

    Args:
        header: the header after a line end, so that each field begins after one.
        pattern: finds a line end and a field up to its colon, with the name in the only group. It
            is applied to the header in lower case.

    Yields:
        The name in lower case, and the value, still folded.
    """
    for match in pattern.finditer(header.lower()):
        stop = _FIELD_END.search(header, match.end())
        yield match[1], header[match.end() : len(header) if stop is None else stop.start()]


def unfold(value: bytes) -> bytes:
    """Return the value of a field without line breaks (RFC 5322 2.2.3) and space around it.

    A NUL, which no string of IMAP but a literal8 may hold, becomes U+FFFD, as Dovecot has it; a CR
    that is not part of a line break becomes a space.
    """
    value = value.strip(b" \t\r\n")
    if b"\n" in value:
        value = _LINE_BREAK.sub(b"", value)
    if b"\r" in value:
        value = value.replace(b"\r", b" ")
    if b"\0" in value:
        value = value.replace(b"\0", b"\xef\xbf\xbd")
    return value
