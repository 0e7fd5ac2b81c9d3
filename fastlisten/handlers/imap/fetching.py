"""FETCH and UID FETCH.

Rules of this file: which items a message's response has, and getting them with as few calls of the
store as possible. Messages are answered in their order, some at a time: what is sent at once, and
what is in memory, is bounded whatever a client asks for. A message that is gone is left out, and
the session says so at the end (RFC 2180 4.1).
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fastlisten._mail_syntax import fetch_flags
from fastlisten.handlers.imap.connection_interface import Connection
from fastlisten.handlers.imap.engine.body_structure import (
    item_body,
    item_body_structure,
    item_envelope,
)
from fastlisten.handlers.imap.engine.commands import Fetch
from fastlisten.handlers.imap.engine.fetch_items import FetchItem, Section
from fastlisten.handlers.imap.engine.message_responses import (
    fetch_response,
    item_email_id,
    item_flags,
    item_internal_date,
    item_literal_head,
    item_modseq,
    item_section,
    item_size,
    item_thread_id,
    item_uid,
)
from fastlisten.handlers.imap.message_content import PIECE, Body, MessageContent
from fastlisten.handlers.imap.message_flags import written_forms
from fastlisten.handlers.imap.message_sets import slices_of
from fastlisten.handlers.imap.rejection import BrokenOffError
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.handlers.imap.vanished import vanished_earlier
from fastlisten.mail.mime.structure import Envelope, Part
from fastlisten.mail.store.interface import (
    GONE,
    HAS_KEYWORDS,
    Columns,
    Facts,
    Flag,
    MessageGoneError,
    MessageState,
    StoreError,
    StoreMode,
    StoreUnavailableError,
)

__all__ = ["fetch"]

#: Messages whose flags are written at once: some 80 kB, 0.1 ms.
FLAGS_AT_ONCE = 2000

#: Messages that the store is asked about at once.
FACTS_AT_ONCE = 200

#: Messages that become seen at once.
SEEN_AT_ONCE = 50

_FLAG_ITEMS: frozenset[FetchItem] = frozenset({"FLAGS", "MODSEQ", "UID"})
_STRUCTURED: dict[FetchItem, Callable[[Part], bytes]] = {
    "BODY": item_body,
    "BODYSTRUCTURE": item_body_structure,
    "ENVELOPE": lambda root: item_envelope(root.envelope or Envelope()),
}
_FACTS: frozenset[FetchItem] = frozenset(
    {"BODY", "BODYSTRUCTURE", "EMAILID", "ENVELOPE", "INTERNALDATE", "RFC822.SIZE"}
)


#: For `bytes.translate`: what is not 0 where a message has keywords.
_KEYWORDS = bytes([bits & HAS_KEYWORDS for bits in range(256)])


async def fetch(command: Fetch, mailbox: SelectedMailbox, connection: Connection) -> bool:
    """Carry out FETCH but for its tagged response.

    Returns:
        Whether all messages that were asked for have been there.

    Raises:
        Rejected: a message number is not in use.
        StoreError: the store cannot do it.
        BrokenOffError: a response has been sent in part, and cannot be completed.
    """
    places = mailbox.places(command.messages, uid=command.uid)
    if command.vanished and command.changed_since is not None:
        folder = mailbox.folder
        changes = await folder.changes(command.changed_since)
        connection.engine.send(
            vanished_earlier(changes, folder.uids(), command.messages, mailbox.saved)
        )
    work = _Fetch(command, mailbox, connection)
    if _FLAG_ITEMS.issuperset(command.items) and "FLAGS" in command.items:
        await work.answer_flags(places)
    else:
        await work.answer(places)
    return not work.missing


def _changed(columns: Columns, since: int) -> Columns:
    """Leave out what has not changed since a modification sequence."""
    pairs = zip(columns.flags, columns.modseqs, strict=True)
    flags = bytes([bits if modseq > since else GONE for bits, modseq in pairs])
    return replace(columns, flags=flags)


def _with_keywords(flags: bytes) -> Iterator[int]:
    """Yield the places of messages that have keywords."""
    marks = flags.translate(_KEYWORDS)
    place = marks.find(HAS_KEYWORDS)
    while place >= 0:
        yield place
        place = marks.find(HAS_KEYWORDS, place + 1)


class _Fetch:
    """One command.

    Attributes:
        missing: a message was not there any more.
    """

    __slots__ = (
        "_connection",
        "_facts",
        "_folder",
        "_items",
        "_mailbox",
        "_marks_seen",
        "_sections",
        "_since",
        "missing",
    )

    def __init__(self, command: Fetch, mailbox: SelectedMailbox, connection: Connection) -> None:
        self._mailbox = mailbox
        self._folder = mailbox.folder
        self._connection = connection
        self._items = command.items
        self._since = command.changed_since
        self._facts = any(
            item in _FACTS or (isinstance(item, Section) and item.part) for item in command.items
        )
        self._sections = any(isinstance(item, Section) for item in command.items)
        self._marks_seen = not self._folder.read_only and any(
            isinstance(item, Section) and not item.peek for item in command.items
        )
        self.missing = False

    def _states(self, places: range) -> list[tuple[int, MessageState]]:
        """Return the messages that are to be answered, with their numbers."""
        state_of, since = self._folder.state, self._since
        found = []
        for number, uid in enumerate(
            self._folder.uids()[places.start : places.stop], places.start + 1
        ):
            try:
                state = state_of(uid)
            except MessageGoneError:
                self.missing = True
                continue
            if since is None or state.modseq > since:
                found.append((number, state))
        return found

    async def answer_flags(self, places: Sequence[range]) -> None:
        """Answer FETCH of flags, and perhaps UIDs and modification sequences."""
        for piece in slices_of(places, FLAGS_AT_ONCE):
            columns = self._folder.columns(piece)
            if GONE in columns.flags:
                self.missing = True
            if self._since is not None:
                columns = _changed(columns, self._since)
            uids, place = columns.uids, 0
            for one in self._folder.recent:
                start, stop = bisect_left(uids, one.start), bisect_left(uids, one.stop)
                self._send_flags(piece.start, columns, range(place, start), recent=False)
                self._send_flags(piece.start, columns, range(start, stop), recent=True)
                place = stop
            self._send_flags(piece.start, columns, range(place, len(uids)), recent=False)
            await self._connection.flush()

    def _send_flags(self, first: int, columns: Columns, places: range, *, recent: bool) -> None:
        if not places:
            return
        start, stop = places.start, places.stop
        uids, flags = columns.uids[start:stop], columns.flags[start:stop]
        others = {}
        # Before anything is written, because new keywords are said first.
        for place in _with_keywords(flags):
            try:
                others[place] = self._mailbox.flags_of(self._folder.state(uids[place]))
            except MessageGoneError:
                self.missing = True
        self._connection.engine.send(
            fetch_flags(
                first + start + 1,
                flags,
                written_forms(recent=recent),
                others,
                uids if "UID" in self._items else None,
                columns.modseqs[start:stop] if "MODSEQ" in self._items else None,
            )
        )

    async def answer(self, places: Sequence[range]) -> None:
        """Answer any other."""
        size = SEEN_AT_ONCE if self._marks_seen else FACTS_AT_ONCE
        for piece in slices_of(places, size):
            states = self._states(piece)
            facts: dict[int, Facts] = {}
            parsed: dict[int, bytes] = {}
            # Of several messages, one question finds the files too.
            if self._facts or (self._sections and len(states) > 1):
                known = await self._folder.facts([one.uid for _, one in states])
                facts = {one.uid: one for one in known}
            seen = await self._mark_seen(states) if self._marks_seen else {}
            for number, state in states:
                if self._facts and state.uid not in facts:
                    self.missing = True
                    continue
                changed = seen.get(state.uid)
                content = MessageContent(self._folder, state.uid, facts.get(state.uid), parsed)
                size = 0
                try:
                    size = await self._message(
                        number, changed or state, content, facts.get(state.uid), changed is not None
                    )
                except MessageGoneError:
                    self.missing = True
                finally:
                    content.close()
                if self._connection.is_due(size):
                    await self._connection.flush()
            if parsed:
                # The client has its answers, and does not wait for this.
                await self._connection.flush()
                with contextlib.suppress(StoreError):
                    await self._folder.keep_structures(parsed)

    async def _mark_seen(
        self, states: Sequence[tuple[int, MessageState]]
    ) -> dict[int, MessageState]:
        r"""Set \Seen where it is missing (RFC 3501 6.4.5); return what has changed."""
        unseen = [one.uid for _, one in states if not one.flags & Flag.SEEN]
        if not unseen:
            return {}
        stored = await self._folder.store(unseen, StoreMode.ADD, Flag.SEEN)
        self._mailbox.note_told(stored.changed)
        return {one.uid: one for one in stored.changed}

    async def _message(
        self,
        number: int,
        state: MessageState,
        content: MessageContent,
        facts: Facts | None,
        changed: bool,
    ) -> int:
        """Answer one message; return how many octets of that have not been written.

        Raises:
            MessageGoneError: it is gone, and nothing has been sent of it.
            BrokenOffError: something has.
        """
        engine = self._connection.engine
        flags = self._mailbox.flags_of(state)
        begun = b"* %d FETCH (" % number
        ready: list[bytes] = []
        sent = False
        kept = 0  # octets of sections in `ready`
        for item in self._items:
            if isinstance(item, Section):
                if kept > PIECE:
                    # A client may ask for one section a thousand times.
                    engine.send(begun + b" ".join(ready))
                    begun, ready, sent, kept = b"", [b""], True, 0
                    await self._connection.flush()
                try:
                    body = await content.body(item)
                    if body is None or body.size <= PIECE:
                        octets = None if body is None else await content.read(body)
                        if body is not None and octets is not None and len(octets) < body.size:
                            raise StoreUnavailableError("Message has become shorter")
                        ready.append(item_section(item.label, octets))
                        kept += len(ready[-1])
                        continue
                    # A long one is not kept in memory.
                    ready.append(item_literal_head(item.label, body.size))
                    engine.send(begun + b" ".join(ready))
                    begun, ready, sent, kept = b"", [], True, 0
                    await self._stream(content, body)
                    # What follows is separated from it by a blank.
                    ready.append(b"")
                except StoreError as error:
                    if sent:
                        raise BrokenOffError from error
                    raise
            elif item in _STRUCTURED:
                try:
                    ready.append(await content.written_structure(_STRUCTURED[item]))
                except StoreError as error:
                    if sent:
                        raise BrokenOffError from error
                    raise
            else:
                ready.append(self._plain(item, state, facts, flags))
        if changed:
            if "FLAGS" not in self._items:
                ready.append(item_flags(flags))
            if "MODSEQ" not in self._items and engine.condstore:
                ready.append(item_modseq(state.modseq))
        response = b" ".join(ready) + b")\r\n" if sent else fetch_response(number, ready)
        engine.send(response)
        return len(response)

    def _plain(
        self, item: FetchItem, state: MessageState, facts: Facts | None, flags: bytes
    ) -> bytes:
        """Return an item that needs nothing of the message's content."""
        if item == "UID":
            return item_uid(state.uid)
        if item == "FLAGS":
            return item_flags(flags)
        if item == "MODSEQ":
            return item_modseq(state.modseq)
        if item == "THREADID":
            return item_thread_id(None)
        assert facts is not None
        if item == "RFC822.SIZE":
            return item_size(facts.size)
        if item == "INTERNALDATE":
            return item_internal_date(facts.date)
        assert item == "EMAILID"
        return item_email_id(facts.email_id)

    async def _stream(self, content: MessageContent, body: Body) -> None:
        """Send octets as they are read.

        Raises:
            BrokenOffError: there are fewer than have been announced.
        """
        engine, left = self._connection.engine, body.size
        try:
            async for piece in content.pieces(body):
                # As write_literal has it.
                engine.send(piece.replace(b"\0", b"\x80") if b"\0" in piece else piece)
                left -= len(piece)
                await self._connection.flush()
        except StoreError as error:
            raise BrokenOffError from error
        if left:
            raise BrokenOffError
