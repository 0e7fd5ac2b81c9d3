"""The parser: the octets of a message in, the tree of its parts out.

    part = parse(data)

Rules of this file: boundaries, headers and counts; the values of fields are read in content_fields
and envelope. The message is searched by `find` and by regular expressions over the whole of it,
never line by line.

Boundaries (RFC 2046 5.1.1). The multiparts around the current position are a stack. A line is a
delimiter if it begins with two hyphens and the boundary of any of them; the longest one counts,
and of two that are the same the inner one, as Dovecot has it. What is deeper on the stack ends
there. Each multipart knows its next delimiter, which is searched for only up to the next delimiter
of those around it: nothing beyond that could be its own. So an octet is looked at once for each
multipart around it, at most `MAX_DEPTH` times, however many delimiters a message has.
"""

from __future__ import annotations

import re
from mmap import mmap

from fastlisten.mail.mime.content_fields import content_type, disposition, languages, token
from fastlisten.mail.mime.envelope import ENVELOPE_FIELDS, envelope_of
from fastlisten.mail.mime.header_fields import Octets, header_end, unfold, values
from fastlisten.mail.mime.limits import (
    MAX_BOUNDARY,
    MAX_DEPTH,
    MAX_FIELD,
    MAX_HEADER,
    MAX_PARTS,
    MAX_VALUES,
)
from fastlisten.mail.mime.structure import Envelope, Part

__all__ = ["parse"]

_CONTENT = rb"content-(?:type|transfer-encoding|disposition|id|description|language|location|md5)"
_CONTENT_FIELDS = re.compile(rb"\n(" + _CONTENT + rb")[ \t]*:")
_MESSAGE_FIELDS = re.compile(
    rb"\n(" + _CONTENT + b"|" + b"|".join(sorted(ENVELOPE_FIELDS)) + rb")[ \t]*:"
)

_DEFAULT = (b"text", b"plain")
_DIGEST = (b"message", b"rfc822")

#: Octets that are counted in one piece of a mapped file, which can only be counted in a copy.
_PIECE = 1024 * 1024


def parse(data: Octets) -> Part:
    """Return the structure of a message.

    One MiB of usual mail takes 1 ms. If it is made to be slow, it takes 40 ms, and the headers of
    the whole message some hundreds.

    Args:
        data: the whole message; its lines end with CRLF or LF, also mixed. Its header alone will do
            if only the envelope is wanted.
    """
    return _Parser(data).message()


class _Multipart:
    """A multipart whose next part may follow.

    Attributes:
        delimiter: a line end, two hyphens and the boundary.
        level: how many parts are open, itself included, when it is the innermost.
        found: offset of the next delimiter line that is its own or belongs to a multipart around
            it, or the message's end; out of date if the parser is beyond it.
        owner: whose delimiter that is, as an index of the stack; -1 at the message's end.
    """

    __slots__ = ("delimiter", "found", "level", "owner")

    def __init__(self, boundary: bytes, level: int) -> None:
        self.delimiter = b"\n--" + boundary
        self.level = level
        self.found = -1
        self.owner = -1


class _Parser:
    """The state of parsing one message.

    Attributes:
        parts: all parts so far.
        open: those around the current position, the outermost first.
        stack: the multiparts among them whose closing delimiter has not been seen.
        left: how many octets of values may still be read.
    """

    __slots__ = ("data", "left", "open", "parts", "size", "stack")

    def __init__(self, data: Octets) -> None:
        self.data = data
        self.size = len(data)
        self.parts: list[Part] = []
        self.open: list[Part] = []
        self.stack: list[_Multipart] = []
        self.left = MAX_VALUES

    def message(self) -> Part:
        """Parse the message."""
        part: Part | None = self.begin(0, is_message=True)
        while part is not None:
            part = self.inside(part)
        _count_lines(self.data, self.parts)
        return self.parts[0]

    def begin(self, start: int, is_message: bool, default: tuple[bytes, bytes] = _DEFAULT) -> Part:
        """Begin a part within the innermost open one, and read its header."""
        limit, _ = self.next_delimiter(start)
        part = Part(start, header_end(self.data, start, limit))
        part.type, part.subtype = default
        stop = min(part.body, start + MAX_HEADER)
        # With the line end before it, where there is one, so that every field begins after one.
        header = self.data[start - 1 : stop] if start else b"\n" + self.data[:stop]
        found = []
        for name, value in values(header, _MESSAGE_FIELDS if is_message else _CONTENT_FIELDS):
            if name.startswith(b"content-"):
                value = value[:MAX_FIELD]
            if len(value) <= self.left:
                self.left -= len(value)
                found.append((name, value))
        _describe(part, found)
        if is_message:
            part.envelope = envelope_of(found)
        self.add(part)
        return part

    def add(self, part: Part) -> None:
        """Put a part into the tree."""
        if self.open:
            self.open[-1].children.append(part)
        self.open.append(part)
        self.parts.append(part)

    def inside(self, part: Part) -> Part | None:
        """Return the part that begins next after a header, or None at the message's end."""
        deepest = len(self.open) >= MAX_DEPTH
        if part.type == b"message" and part.subtype == b"rfc822":
            if not deepest and len(self.parts) < MAX_PARTS:
                return self.begin(part.body, is_message=True)
            # A message without a message in it could not be described in IMAP.
            self.add(Part(part.body, part.body, envelope=Envelope()))
        elif part.type == b"multipart" and not deepest:
            boundary = part.parameter(b"boundary")
            if boundary is not None and len(boundary) <= MAX_BOUNDARY:
                self.stack.append(_Multipart(boundary, len(self.open)))
        return self.after(part.body)

    def after(self, position: int) -> Part | None:
        """Go on at the next delimiter; return the part after it, or None at the message's end."""
        while True:
            found, owner = self.next_delimiter(position)
            if owner < 0 or len(self.parts) >= MAX_PARTS:
                self.close(0, self.size)
                return None
            multipart = self.stack[owner]
            self.close(multipart.level, self.line_break_before(found))
            del self.stack[owner + 1 :]
            position = found + len(multipart.delimiter) - 1
            if self.data[position : position + 2] == b"--":
                del self.stack[owner]
                continue
            line_end = self.data.find(b"\n", position)
            position = self.size if line_end < 0 else line_end + 1
            in_digest = self.open[-1].subtype == b"digest"
            return self.begin(
                position, is_message=False, default=_DIGEST if in_digest else _DEFAULT
            )

    def line_break_before(self, position: int) -> int:
        """Return where the line break begins that ends before `position`."""
        return position - (2 if self.data[position - 2 : position - 1] == b"\r" else 1)

    def close(self, level: int, end: int) -> None:
        """End the innermost parts until `level` parts are open."""
        while len(self.open) > level:
            part = self.open.pop()
            part.end = end
            # A delimiter right after a header, or after another delimiter, takes its line break
            # from that.
            part.body = min(part.body, end)
            part.header = min(part.header, end)

    def next_delimiter(self, position: int) -> tuple[int, int]:
        """Find the first delimiter line at or after `position`, the beginning of a line.

        Returns:
            Its offset and the index of its multipart in the stack; the message's end and -1 if
            there is none.
        """
        stack = self.stack
        known = len(stack) - 1
        # What is up to date on the stack stands below what is not: the inner ones never found
        # anything beyond what those around them had found.
        while known >= 0 and stack[known].found < position:
            known -= 1
        found, owner = (stack[known].found, stack[known].owner) if known >= 0 else (self.size, -1)
        for index in range(known + 1, len(stack)):
            multipart = stack[index]
            delimiter = multipart.delimiter
            own = self.data.find(delimiter, position - 1, found - 1 + len(delimiter)) + 1
            # At the offset of a longer boundary around it, it is only a prefix of that one.
            longer = own == found and owner >= 0 and len(stack[owner].delimiter) > len(delimiter)
            if own > 0 and not longer:
                found, owner = own, index
            multipart.found, multipart.owner = found, owner
        return found, owner


def _describe(part: Part, found: list[tuple[bytes, bytes]]) -> None:
    """Set what the fields of a header say of a part; the first of each name counts."""
    seen: set[bytes] = set()
    for name, folded in found:
        if name in seen or not name.startswith(b"content-"):
            continue
        seen.add(name)
        value = unfold(folded)
        if name == b"content-type":
            part.type, part.subtype, part.parameters = content_type(value)
        elif name == b"content-transfer-encoding":
            part.encoding = token(value) or b"7bit"
        elif name == b"content-disposition":
            part.disposition, part.disposition_parameters = disposition(value)
        elif name == b"content-language":
            part.languages = languages(value)
        elif name == b"content-id":
            part.id = value
        elif name == b"content-description":
            part.description = value
        elif name == b"content-md5":
            part.md5 = value
        else:
            part.location = value


def _count_lines(data: Octets, parts: list[Part]) -> None:
    """Count the line ends of all parts' headers and bodies, looking at each octet once.

    How the first line ends says how all do, as in the store: a message of CRLFs is served octet by
    octet, whatever else it holds.
    """
    offsets = sorted({offset for part in parts for offset in (part.header, part.body, part.end)})
    ends = _counts(data, b"\n", offsets)
    for part in parts:
        part.header_lines = ends[part.body] - ends[part.header]
        part.lines = ends[part.end] - ends[part.body]
    first = data.find(b"\n")
    if first < 0 or data[first - 1 : first] == b"\r":
        return
    pairs = dict.fromkeys(offsets, 0)
    if data.find(b"\r") >= 0:  # which costs little
        # No offset is between a CR and its LF.
        pairs = _counts(data, b"\r\n", offsets)
    for part in parts:
        part.header_bare = part.header_lines - pairs[part.body] + pairs[part.header]
        part.bare = part.lines - pairs[part.end] + pairs[part.body]


def _counts(data: Octets, what: bytes, offsets: list[int]) -> dict[int, int]:
    """Return how often something occurs from the first offset to each of them (in their order)."""
    result = {}
    total = 0
    before = offsets[0]
    for offset in offsets:
        if isinstance(data, bytes):
            total += data.count(what, before, offset)
        else:
            total += _count_in_pieces(data, what, before, offset)
        result[offset] = total
        before = offset
    return result


def _count_in_pieces(data: mmap, what: bytes, start: int, end: int) -> int:
    """Count in a mapped file, of which only copies can be counted."""
    total = 0
    while start < end:
        stop = min(end, start + _PIECE)
        if stop < end and data[stop - 1] == 0x0D:
            stop -= 1  # a CR stays with its LF
        total += data[start:stop].count(what)
        start = stop
    return total
