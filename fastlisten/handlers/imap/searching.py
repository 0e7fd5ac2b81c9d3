"""SEARCH and UID SEARCH: which messages a tree of keys finds.

Rules of this file: sets of UIDs. A key gets the messages that are still in question and returns
those that it finds, so that in a conjunction the keys that cost little come first, and messages
are read only if everything else about them fits:

    0  flags, numbers, modification sequences: from memory
    1  sizes, dates, ids: one question to the store for many messages
    2  header fields: the header of each message is read
    3  text: the message is read and decoded

Messages that are gone are not found.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import date

from fastlisten.handlers.imap.connection_interface import Connection
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import Search
from fastlisten.handlers.imap.engine.message_responses import (
    esearch_response,
    search_response,
    written_numbers,
)
from fastlisten.handlers.imap.engine.search_keys import (
    And,
    Dated,
    FieldText,
    Flagged,
    Identified,
    ModSeq,
    Not,
    Numbered,
    Or,
    Recent,
    SearchKey,
    Sized,
    Text,
    Within,
)
from fastlisten.handlers.imap.message_content import LARGE_HEADER, MessageContent
from fastlisten.handlers.imap.message_flags import bit_of, has_flag
from fastlisten.handlers.imap.message_sets import numbers_of, places_of, uids_of
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.handlers.imap.threads import in_thread
from fastlisten.mail.mime.header_fields import fields, unfold
from fastlisten.mail.mime.sent_date import parse_date
from fastlisten.mail.mime.structure import Part
from fastlisten.mail.mime.text import body_contains, field_contains, fold, text_contains
from fastlisten.mail.store.interface import (
    GONE,
    HAS_KEYWORDS,
    Columns,
    Facts,
    MessageGoneError,
    MessageState,
    StoreError,
)

__all__ = ["search"]

#: Messages that are looked at, from memory, before others get their turn: 2 ms.
_AT_ONCE = 2000

#: Messages of whose columns the same is true.
_IN_COLUMNS = 50_000

#: Messages that the store is asked about at once.
_FACTS_AT_ONCE = 500

#: More than any size, or date in seconds.
_MOST = 1 << 64

_EPOCH, _DAY = date(1970, 1, 1), 86400

#: Structures that the store is given at once.
_KEPT_AT_ONCE = 100

#: Messages with more octets are searched in a thread.
_LARGE = 65_536


@functools.cache
def _table(bits: int, *, unset: bool = False) -> bytes:
    """Return what `_by_flags` takes, for messages with some bits, or without all of them."""
    return bytes([bool(one & bits) is not unset for one in range(256)])


_THERE = _table(GONE, unset=True)
_KEYWORDS = _table(HAS_KEYWORDS)


async def search(
    command: Search, mailbox: SelectedMailbox, connection: Connection, longest: float = 0.0
) -> None:
    """Carry out SEARCH but for its tagged response.

    Args:
        command: what is asked for.
        mailbox: where.
        connection: the client's.
        longest: seconds that reading messages may take, 0 for any time.

    Raises:
        Rejected: it takes longer.
        StoreError: the store cannot do it.
    """
    engine, folder = connection.engine, mailbox.folder
    save = command.returns is not None and "SAVE" in command.returns
    if save:
        # RFC 5182 2.1: if it fails, nothing is saved. The keys may still refer to what was.
        saved, mailbox.saved = mailbox.saved, ()
    else:
        saved = mailbox.saved
    found = await _Search(mailbox, connection, saved, longest).run(command.key)
    returned = _returned(found, command.returns)
    if save:
        mailbox.saved = returned
    modseq = None
    if command.modseq:
        modseq = max((state.modseq for state in _states(mailbox, returned)), default=None)
    numbers: Sequence[int] = found
    if not command.uid:
        numbers = await _numbers(found, folder.uids(), connection)
    if command.returns is None:
        await _say_found(numbers, modseq, connection)
    else:
        engine.send(
            esearch_response(engine.tag, numbers, command.returns, uid=command.uid, modseq=modseq)
        )


async def _numbers(found: list[int], uids: Sequence[int], connection: Connection) -> list[int]:
    """Return the message numbers of UIDs, some at a time."""
    numbers: list[int] = []
    for start in range(0, len(uids) if found else 0, _IN_COLUMNS):
        if start:
            await connection.flush()
        mine = uids[start : start + _IN_COLUMNS]
        some = found[bisect_left(found, mine[0]) : bisect_right(found, mine[-1])]
        numbers += [start + number for number in numbers_of(some, mine)]
    return numbers


async def _say_found(numbers: Sequence[int], modseq: int | None, connection: Connection) -> None:
    """Say what SEARCH has found; a long line is written some numbers at a time."""
    start = 0
    if len(numbers) > _IN_COLUMNS:
        connection.engine.send(b"* SEARCH ")
        while len(numbers) - start > _IN_COLUMNS:
            connection.engine.send(written_numbers(numbers[start : start + _IN_COLUMNS]) + b" ")
            start += _IN_COLUMNS
            await connection.flush()
        connection.engine.send(search_response(numbers[start:], modseq)[len(b"* SEARCH ") :])
        return
    connection.engine.send(search_response(numbers, modseq))


def _returned(found: list[int], returns: frozenset[str] | None) -> list[int]:
    """Return what is saved, and whose modification sequences count (RFC 5182 2.4, RFC 4731 3.2)."""
    if returns is None or not found or returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX"}:
        return found
    ends = []
    if "MIN" in returns:
        ends.append(found[0])
    if "MAX" in returns and found[-1:] != ends:
        ends.append(found[-1])
    return ends


def _states(mailbox: SelectedMailbox, uids: Sequence[int]) -> list[MessageState]:
    states = []
    for uid in uids:
        try:
            states.append(mailbox.folder.state(uid))
        except MessageGoneError:
            continue
    return states


def _cost(key: SearchKey) -> int:
    """Return how much it costs to know of a message whether a key finds it."""
    if isinstance(key, And):
        return max(map(_cost, key.keys), default=0)
    if isinstance(key, Or):
        return max(_cost(key.first), _cost(key.second))
    if isinstance(key, Not):
        return _cost(key.key)
    if isinstance(key, Text):
        return 3
    if isinstance(key, FieldText):
        return 2
    if isinstance(key, Dated):
        return 2 if key.sent else 1
    return 1 if isinstance(key, Sized | Within | Identified) else 0


class _Search:
    """One search."""

    __slots__ = ("_connection", "_ends", "_facts", "_folder", "_mailbox", "_now", "_saved")

    def __init__(
        self,
        mailbox: SelectedMailbox,
        connection: Connection,
        saved: Sequence[int],
        longest: float,
    ) -> None:
        self._ends = time.monotonic() + longest if longest else math.inf
        self._mailbox = mailbox
        self._folder = mailbox.folder
        self._connection = connection
        self._saved = saved
        self._facts: dict[int, Facts] = {}
        self._now = time.time()

    def _look_at_clock(self) -> None:
        """Give up a search that takes too long.

        Raises:
            Rejected: this one does.
        """
        if time.monotonic() > self._ends:
            raise Rejected("Search took too long", codes.LIMIT)

    async def run(self, key: SearchKey) -> list[int]:
        """Return what a key finds, ascending."""
        # A copy: the store may change its own.
        found = await self.find(key, self._folder.uids()[:])
        # Messages that are gone, but not yet told, may be among them.
        if self._some_are_gone():
            found = await self._by_flags(_THERE, found)
        return list(found)

    def _some_are_gone(self) -> bool:
        folder, count = self._folder, len(self._folder.uids())
        return any(
            GONE in folder.columns(range(start, min(start + _IN_COLUMNS, count))).flags
            for start in range(0, count, _IN_COLUMNS)
        )

    async def find(self, key: SearchKey, uids: Sequence[int]) -> Sequence[int]:
        """Return those of some messages that a key finds; both ascending."""
        if not uids:
            return []
        if self._connection.is_due(0):  # a command has room for thousands of keys
            await self._connection.flush()
        if isinstance(key, And):
            for one in sorted(key.keys, key=_cost):
                uids = await self.find(one, uids)
            return uids
        if isinstance(key, Or):
            first, second = sorted((key.first, key.second), key=_cost)
            rest = await self._without(uids, await self.find(first, uids))
            neither = await self._without(rest, await self.find(second, rest))
            return await self._without(uids, neither)
        if isinstance(key, Not):
            unset = bit_of(key.key.flag) if isinstance(key.key, Flagged) else None
            if unset is not None:
                return await self._by_flags(_table(int(unset), unset=True), uids)
            return await self._without(uids, await self.find(key.key, uids))
        if isinstance(key, Numbered):
            mine = self._folder.uids()
            places = places_of(key.messages, mine, self._saved, uid=key.uid)
            return await self._among(uids, uids_of(places, mine))
        if isinstance(key, Recent):
            return [
                uid
                for one in self._folder.recent
                for uid in uids[bisect_left(uids, one.start) : bisect_left(uids, one.stop)]
            ]
        if isinstance(key, Flagged):
            flag, bit = key.flag, bit_of(key.flag)
            if bit is not None:
                return await self._by_flags(_table(int(bit)), uids)
            uids = await self._by_flags(_KEYWORDS, uids)
            return await self._by_state(lambda state: has_flag(state, flag), uids)
        if isinstance(key, ModSeq):
            modseq = key.modseq
            return await self._by_columns(
                lambda columns: itertools.compress(
                    columns.uids, [one >= modseq for one in columns.modseqs]
                ),
                uids,
            )
        if isinstance(key, Text):
            return await self._by_text(key, uids)
        if isinstance(key, FieldText) or (isinstance(key, Dated) and key.sent):
            return await self._by_header(_of_header(key), uids)
        if isinstance(key, Identified):
            wanted, thread = key.id, key.thread
            return await self._by_facts(lambda facts: not thread and facts.email_id == wanted, uids)
        return await self._by_range(*self._range(key), uids)

    async def _without(self, uids: Sequence[int], those: Sequence[int]) -> list[int]:
        """Return messages that are not among others; all ascending."""
        found: list[int] = []
        async for some, others in self._pairs(uids, those):
            found += [uid for uid in some if uid not in others] if others else some
        return found

    async def _among(self, uids: Sequence[int], those: Sequence[int]) -> list[int]:
        """Return messages that are among others; all ascending."""
        found: list[int] = []
        async for some, others in self._pairs(uids, those):
            found += [uid for uid in some if uid in others] if others else ()
        return found

    async def _pairs(
        self, uids: Sequence[int], those: Sequence[int]
    ) -> AsyncIterator[tuple[Sequence[int], set[int]]]:
        """Yield some messages at a time, with those others that may be the same."""
        for start in range(0, len(uids), _IN_COLUMNS):
            if start:
                await self._connection.flush()
            some = uids[start : start + _IN_COLUMNS]
            yield some, set(those[bisect_left(those, some[0]) : bisect_right(those, some[-1])])

    # --- from memory --------------------------------------------------------------------------

    async def _by_flags(self, table: bytes, uids: Sequence[int]) -> Sequence[int]:
        """Return messages by their flags.

        Args:
            table: for `bytes.translate` of `Columns.flags`: what is not 0 for what is wanted.
            uids: those in question, ascending.
        """

        def matches(columns: Columns) -> Iterable[int]:
            found = columns.flags.translate(table)
            if found.count(1) > len(found) // 4:
                return itertools.compress(columns.uids, found)
            return _few(columns.uids, found)

        return await self._by_columns(matches, uids)

    async def _by_columns(
        self, matching: Callable[[Columns], Iterable[int]], uids: Sequence[int]
    ) -> Sequence[int]:
        folder = self._folder
        mine = folder.uids()
        count, found = len(mine), list[int]()
        first = bisect_left(mine, uids[0]) if uids else count
        last = bisect_right(mine, uids[-1]) if uids else count
        for start in range(first, last, _IN_COLUMNS):
            if start > first:
                await self._connection.flush()
            columns = folder.columns(range(start, min(start + _IN_COLUMNS, last)))
            found += matching(columns)
        if len(uids) == last - first:
            return found
        wanted = set(uids)
        return [uid for uid in found if uid in wanted]

    async def _by_state(
        self, matches: Callable[[MessageState], bool], uids: Sequence[int]
    ) -> list[int]:
        state_of = self._folder.state
        found = []
        for start in range(0, len(uids), _AT_ONCE):
            if start:
                await self._connection.flush()
            for uid in uids[start : start + _AT_ONCE]:
                try:
                    if matches(state_of(uid)):
                        found.append(uid)
                except MessageGoneError:
                    continue
        return found

    # --- what the store knows -----------------------------------------------------------------

    def _range(self, key: SearchKey) -> tuple[bool, int, int]:
        """Return the sizes, or else the dates, that a key finds: the first one, and the last."""
        if isinstance(key, Sized):
            return (True, key.octets + 1, _MOST) if key.larger else (True, -_MOST, key.octets - 1)
        if isinstance(key, Within):
            since = math.floor(self._now - key.seconds)
            return (False, since + 1, _MOST) if key.younger else (False, -_MOST, since)
        assert isinstance(key, Dated)
        begins = (key.day - _EPOCH).days * _DAY
        if key.how == "BEFORE":
            return False, -_MOST, begins - 1
        return False, begins, begins + _DAY - 1 if key.how == "ON" else _MOST

    async def _by_range(
        self, sizes: bool, first: int, last: int, uids: Sequence[int]
    ) -> Sequence[int]:
        """Return messages by their sizes, or else by their dates."""

        def matches(facts: Facts) -> bool:
            return first <= (facts.size if sizes else facts.date) <= last

        columns = None
        if len(uids) > _FACTS_AT_ONCE:  # else asking costs less
            columns = await self._folder.fact_columns()
        if columns is None:
            return await self._by_facts(matches, uids)
        column = columns.sizes if sizes else columns.dates
        found = list[int]()
        for start in range(0, len(column), _IN_COLUMNS):
            if start:
                await self._connection.flush()
            those = columns.uids[start : start + _IN_COLUMNS]
            found += itertools.compress(
                those, [first <= one <= last for one in column[start : start + _IN_COLUMNS]]
            )
        if columns.uids == uids:
            return found
        found = await self._among(found, uids)
        rest = await self._without(uids, columns.uids)
        if rest:  # they have come with UIDs of their own
            found = sorted([*found, *await self._by_facts(matches, rest)])
        return found

    async def _by_facts(self, matches: Callable[[Facts], bool], uids: Sequence[int]) -> list[int]:
        found = []
        known = self._facts
        for start in range(0, len(uids), _FACTS_AT_ONCE):
            self._look_at_clock()
            piece = uids[start : start + _FACTS_AT_ONCE]
            if any(uid not in known for uid in piece):
                known.update((one.uid, one) for one in await self._folder.facts(piece))
            found += [uid for uid in piece if uid in known and matches(known[uid])]
        return found

    # --- what is in the messages --------------------------------------------------------------

    async def _by_header(self, matches: Callable[[bytes], bool], uids: Sequence[int]) -> list[int]:
        found = []
        for uid in uids:
            self._look_at_clock()
            content = MessageContent(self._folder, uid)
            try:
                header = await content.header()
                look = functools.partial(matches, header)
                if await in_thread(look) if len(header) > LARGE_HEADER else look():
                    found.append(uid)
            except MessageGoneError:
                continue
            finally:
                content.close()
            await self._connection.flush()
        return found

    async def _by_text(self, key: Text, uids: Sequence[int]) -> list[int]:
        wanted, contains = fold(key.text), text_contains if key.header else body_contains
        # The store's structures are wanted.
        there = await self._by_facts(lambda _: True, uids)
        found = []
        parsed: dict[int, bytes] = {}
        for uid in there:
            self._look_at_clock()
            content = MessageContent(self._folder, uid, self._facts[uid], parsed)
            try:
                data = await content.whole()
                root = await content.structure()
            except MessageGoneError:
                continue
            finally:
                content.close()

            def contained(data: bytes = data, root: Part = root) -> bool:
                return contains(lambda offset, size: data[offset : offset + size], root, wanted)

            small = len(data) <= _LARGE
            if contained() if small else await in_thread(contained):
                found.append(uid)
            await self._connection.flush()
            if len(parsed) >= _KEPT_AT_ONCE:
                await self._keep(parsed)
        await self._keep(parsed)
        return found

    async def _keep(self, parsed: dict[int, bytes]) -> None:
        if parsed:
            with contextlib.suppress(StoreError):
                await self._folder.keep_structures(parsed)
            parsed.clear()


def _few(uids: Sequence[int], found: bytes) -> Iterator[int]:
    """Yield UIDs where `found` is 1, which is not often: one step for each of them."""
    find = found.find
    place = find(1)
    while place >= 0:
        yield uids[place]
        place = find(1, place + 1)


def _fits(day: date, key: Dated) -> bool:
    if key.how == "BEFORE":
        return day < key.day
    return day == key.day if key.how == "ON" else day >= key.day


def _of_header(key: FieldText | Dated) -> Callable[[bytes], bool]:
    """Return what tells whether a header is one that a key finds."""
    if isinstance(key, Dated):
        dated = key
        return lambda header: _sent(header, dated)
    name, text = key.field.lower().encode("ascii"), fold(key.text)
    return lambda header: any(
        field.name == name and field_contains(header[field.value : field.end], text)
        for field in fields(header, 0, len(header))
    )


def _sent(header: bytes, key: Dated) -> bool:
    """Return whether a message was written on a day that fits (RFC 3501 6.4.4)."""
    for field in fields(header, 0, len(header)):
        if field.name == b"date":
            sent = parse_date(unfold(header[field.value : field.end]))
            return sent is not None and _fits(sent.day, key)
    return False
