"""What FETCH and SEARCH need of one message: its structure, header and sections.

Rules of this file: as little is read as possible. The header of a message is found without its
structure, which is parsed only for parts, BODYSTRUCTURE and ENVELOPE, and may be kept in the store.
Offsets are those of the octets that the store serves.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastlisten.handlers.imap.engine.fetch_items import Section
from fastlisten.handlers.imap.threads import in_thread
from fastlisten.mail.mime.compact import CompactError, pack, unpack
from fastlisten.mail.mime.header_fields import header_end
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sections import Content, section_of, select_fields
from fastlisten.mail.mime.structure import Part
from fastlisten.mail.store.interface import Facts, Folder, Octets

__all__ = ["LARGE_HEADER", "Body", "MessageContent"]

#: Octets that are read first to find the end of a header; few headers are longer.
_FIRST = 8192

#: Octets that are read at once of a long section.
PIECE = 65_536

#: Messages with more octets are parsed in a thread: that takes more than 0.1 ms.
_LARGE = 65_536

#: Messages with fewer octets are not: nothing in them takes more than 10 ms.
_SMALL = 8192

#: Headers with more octets are looked through in a thread: a megabyte takes 0.2 s. Those of most
#: messages have a tenth of it.
LARGE_HEADER = 16_384

#: Lines in a message of at most `_LARGE` octets that may be boundaries, before it is parsed in a
#: thread: most have fewer than ten.
_MANY_LINES = 100

#: Compact structures with more octets are worked on in a thread: one of a hundred parts has 5 kB,
#: one of 10,000 takes 0.2 s.
_LARGE_STRUCTURE = 16_384

_T = TypeVar("_T")
_R = TypeVar("_R")

_CONTENTS = {
    "": Content.WHOLE,
    "HEADER": Content.HEADER,
    "HEADER.FIELDS": Content.HEADER,
    "HEADER.FIELDS.NOT": Content.HEADER,
    "TEXT": Content.TEXT,
    "MIME": Content.MIME,
}


@dataclass(slots=True)
class Body:
    """Octets of a message that a section names.

    Attributes:
        ranges: where they are, in their order.
        size: how many they are.
    """

    ranges: tuple[tuple[int, int], ...]
    size: int

    def part(self, first: int, count: int) -> Body:
        """Return `count` octets from octet `first` on; fewer at the end."""
        left = max(0, min(count, self.size - first))
        size = left
        found = []
        for start, end in self.ranges:
            if first >= end - start:
                first -= end - start
                continue
            start += first
            first = 0
            end = min(end, start + left)
            if start < end:
                found.append((start, end))
                left -= end - start
        return Body(tuple(found), size)


class MessageContent:
    """One message; close it.

    Args:
        folder: where it is.
        uid: its UID.
        facts: what the store has said about it, if it was asked.
        parsed: gets the structure by the UID, if the store has none: see `Folder.keep_structures`.
    """

    __slots__ = (
        "_facts",
        "_folder",
        "_header",
        "_many_parts",
        "_octets",
        "_parsed",
        "_root",
        "_uid",
    )

    def __init__(
        self,
        folder: Folder,
        uid: int,
        facts: Facts | None = None,
        parsed: dict[int, bytes] | None = None,
    ) -> None:
        self._folder = folder
        self._uid = uid
        self._facts = facts
        self._parsed = parsed
        self._octets: Octets | None = None
        self._root: Part | None = None
        self._many_parts = False
        self._header: bytes | None = None

    def close(self) -> None:
        """Give back what is held."""
        if self._octets is not None:
            self._octets.close()
            self._octets = None

    async def octets(self) -> Octets:
        """Return the message's octets.

        Raises:
            MessageGoneError: there is no such message.
        """
        if self._octets is None:
            self._octets = await self._folder.message(self._uid)
        return self._octets

    async def whole(self) -> bytes:
        """Return all octets."""
        octets = await self.octets()
        return await octets.read(0, octets.size)

    async def structure(self) -> Part:
        """Return the structure: the one that the store has kept, or a new one.

        Raises:
            MessageGoneError: there is no such message.
        """
        if self._root is None:
            kept = self._facts.structure if self._facts is not None else None
            if kept is not None:
                self._many_parts = len(kept) > _LARGE_STRUCTURE
                with contextlib.suppress(CompactError):
                    self._root = await self._work(unpack, kept)
        if self._root is None:
            data = await self.whole()
            self._many_parts = _takes_long(data)
            root, packed = await self._work(_parsed, data)
            self._root = root
            self._many_parts = len(packed) > _LARGE_STRUCTURE
            if self._parsed is not None:
                self._parsed[self._uid] = packed
        return self._root

    async def written_structure(self, write: Callable[[Part], bytes]) -> bytes:
        """Return what a function makes of the structure.

        Raises:
            MessageGoneError: there is no such message.
        """
        return await self._work(write, await self.structure())

    async def _work(self, function: Callable[[_T], _R], value: _T) -> _R:
        """Call a function: in a thread, if it takes long because there are many parts."""
        return await in_thread(partial(function, value)) if self._many_parts else function(value)

    async def header(self) -> bytes:
        """Return the header with its blank line.

        Raises:
            MessageGoneError: there is no such message.
        """
        if self._header is None:
            octets = await self.octets()
            size = _FIRST
            while True:
                data = await octets.read(0, size)
                end = header_end(data, 0, len(data))
                if end < len(data) or len(data) < size or size >= octets.size:
                    break
                size *= 4
            self._header = data[:end]
        return self._header

    async def body(self, section: Section) -> Body | None:
        """Return the octets that a section names; None if there is no such section.

        Raises:
            MessageGoneError: there is no such message.
        """
        found = await (self._of_part(section) if section.part else self._of_message(section))
        if found is not None and section.partial is not None:
            return found.part(*section.partial)
        return found

    async def _of_message(self, section: Section) -> Body | None:
        octets = await self.octets()
        if not section.text:
            return Body(((0, octets.size),), octets.size)
        header = await self.header()
        if section.text == "HEADER":
            return Body(((0, len(header)),), len(header))
        if section.text == "TEXT":
            return Body(((len(header), octets.size),), octets.size - len(header))
        return await _fields(section, header, 0)

    async def _of_part(self, section: Section) -> Body | None:
        root = await self.structure()
        found = section_of(root, section.part, _CONTENTS[section.text])
        if found is None:
            return None
        body = Body(found.ranges, found.size)
        if section.fields:
            return await _fields(section, await self.read(body), found.ranges[0][0])
        return body

    async def read(self, body: Body) -> bytes:
        """Return octets."""
        if len(body.ranges) == 1:
            start, end = body.ranges[0]
            if self._header is not None and end <= len(self._header):
                return self._header[start:end]
            return await (await self.octets()).read(start, end - start)
        return b"".join([piece async for piece in self.pieces(body)])

    async def pieces(self, body: Body) -> AsyncIterator[bytes]:
        """Yield octets, at most `PIECE` at a time; fewer than there should be if they are gone."""
        octets = await self.octets()
        header = self._header
        for start, end in body.ranges:
            if header is not None and end <= len(header):
                yield header[start:end]
                continue
            while start < end:
                piece = await octets.read(start, min(PIECE, end - start))
                if not piece:
                    return
                yield piece
                start += len(piece)


def _parsed(data: bytes) -> tuple[Part, bytes]:
    """Return the structure of a message, and its compact form."""
    root = parse(data)
    return root, pack(root)


def _takes_long(data: bytes) -> bool:
    """Return whether it takes long to parse a message: it is large, or made to be slow."""
    return len(data) > _LARGE or (
        len(data) > _SMALL
        and (header_end(data, 0, len(data)) > LARGE_HEADER or data.count(b"\n--") > _MANY_LINES)
    )


async def _fields(section: Section, header: bytes, start: int) -> Body:
    """Return the fields of a header that a section names."""
    select = partial(
        select_fields,
        header,
        start,
        {name.lower() for name in section.fields},
        inverted=section.text == "HEADER.FIELDS.NOT",
    )
    found = await in_thread(select) if len(header) > LARGE_HEADER else select()
    return Body(found.ranges, found.size)
