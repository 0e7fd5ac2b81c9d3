"""A folder in memory: what all sessions of a worker share, and what each of them sees.

    FolderState    UIDs, flags and modseqs as of its cursor; 13 octets a message
    FolderView     one session's: its own cursor, and the messages that are gone but not yet told

Rules of this file: memory only, on the loop. States change by `Changes` (changes.py). A session
that may not be told of expunged messages yet (RFC 3501 7.4.1) keeps them as *ghosts*, so that its
sequence numbers stay.
"""

from __future__ import annotations

import re
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fastlisten.mail.store.interface import (
    GONE,
    HAS_KEYWORDS,
    Changes,
    Columns,
    Flag,
    MessageGoneError,
    MessageState,
)

__all__ = ["FolderState", "FolderView", "Loaded", "columns_of"]


def columns_of(uids: Sequence[int], state_of: Callable[[int], MessageState]) -> Columns:
    """Return what messages have, asked for one by one.

    Args:
        uids: their UIDs.
        state_of: as `interface.Folder.state`.
    """
    flags, modseqs = bytearray(), array("Q")
    for uid in uids:
        try:
            one = state_of(uid)
        except MessageGoneError:
            flags.append(GONE)
            modseqs.append(0)
        else:
            flags.append(one.flags | (HAS_KEYWORDS if one.keywords else 0))
            modseqs.append(one.modseq)
    return Columns(array("I", uids), bytes(flags), modseqs)


#: Finds flags without SEEN: 20 µs for 10,000 messages that have it.
_UNSEEN = re.compile(b"[%b]" % b"".join(b"\\x%02x" % bits for bits in range(0, 0x40, 2)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A whole folder: for each message UID, modseq, flags and keywords with blanks in between."""

    cursor: int
    uidnext: int
    rows: Sequence[tuple[int, int, int, str]]


class FolderState:
    """A folder as of a modification sequence.

    Attributes:
        cursor: that modification sequence; 0: nothing has been loaded yet.
        uidnext: larger than every UID so far.
        uids: all UIDs, ascending.
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_flags",
        "_keywords",
        "_modseqs",
        "_unseen",
        "_views",
        "_words",
        "cursor",
        "uidnext",
        "uids",
    )

    def __init__(self) -> None:
        self.cursor = 0
        self.uidnext = 1
        self.uids = array("I")
        self._modseqs = array("Q")
        self._flags = bytearray()
        self._keywords: dict[int, tuple[str, ...]] = {}
        self._views: weakref.WeakSet[FolderView] = weakref.WeakSet()
        # What was found last, with the cursor that it was found at.
        self._changed: tuple[int, int, list[MessageState]] = 0, 0, []
        self._unseen = 0, 0
        self._words: tuple[int, list[str]] = 0, []

    def __len__(self) -> int:
        return len(self.uids)

    def apply(self, changes: Changes) -> None:
        """Take over what has happened since the cursor; what is older does nothing."""
        if changes.cursor <= self.cursor:
            return
        if not changes.complete:
            there = {one.uid for those in (changes.arrived, changes.changed) for one in those}
            self._remove(uid for uid in self.uids if uid not in there)
        else:
            self._remove(changes.gone)
        for one in changes.changed:
            self._set(one)
        for one in changes.arrived:
            self._set(one)
        self.cursor, self.uidnext = changes.cursor, changes.uidnext

    def load(self, loaded: Loaded) -> None:
        """Begin with a whole folder: 14 ms for 10,000 messages, 35 ms with an object for each."""
        rows = loaded.rows
        self.uids = array("I", [row[0] for row in rows])
        self._modseqs = array("Q", [row[1] for row in rows])
        self._flags = bytearray([row[2] | HAS_KEYWORDS if row[3] else row[2] for row in rows])
        self._keywords = {row[0]: tuple(row[3].split()) for row in rows if row[3]}
        self.cursor, self.uidnext = loaded.cursor, loaded.uidnext

    def _set(self, one: MessageState) -> None:
        place = bisect_left(self.uids, one.uid)
        if place == len(self.uids) or self.uids[place] != one.uid:
            self.uids.insert(place, one.uid)
            self._modseqs.insert(place, 0)
            self._flags.insert(place, 0)
        self._modseqs[place] = one.modseq
        self._flags[place] = one.flags | (HAS_KEYWORDS if one.keywords else 0)
        if one.keywords:
            self._keywords[one.uid] = one.keywords
        else:
            self._keywords.pop(one.uid, None)

    def _remove(self, uids: Iterable[int]) -> None:
        gone = [uid for uid in uids if self._place(uid) >= 0]
        if not gone:
            return
        if len(gone) == 1:
            place = self._place(gone[0])
            for column in (self.uids, self._modseqs, self._flags):
                del column[place]
        else:
            those = set(gone)
            kept = [place for place, uid in enumerate(self.uids) if uid not in those]
            self._modseqs = array("Q", [self._modseqs[place] for place in kept])
            self._flags = bytearray(self._flags[place] for place in kept)
            self.uids = array("I", [self.uids[place] for place in kept])
        for uid in gone:
            self._keywords.pop(uid, None)
        for view in self._views:
            view.lose(gone)

    def _place(self, uid: int) -> int:
        """Return where a UID is, -1 if it is not there."""
        place = bisect_left(self.uids, uid)
        return place if place < len(self.uids) and self.uids[place] == uid else -1

    def has(self, uid: int) -> bool:
        """Return whether a message is there."""
        return self._place(uid) >= 0

    def message(self, uid: int) -> MessageState:
        """Return what a message has.

        Raises:
            MessageGoneError: it is not there.
        """
        place = self._place(uid)
        if place < 0:
            raise MessageGoneError(f"Message {uid} has been expunged")
        return self._at(place)

    def _at(self, place: int) -> MessageState:
        uid, bits = self.uids[place], self._flags[place]
        keywords = self._keywords[uid] if bits & HAS_KEYWORDS else ()
        return MessageState(uid, Flag(bits & ~HAS_KEYWORDS), keywords, self._modseqs[place])

    def columns(self, start: int, stop: int) -> Columns:
        """Return what the messages between two places have."""
        return Columns(
            self.uids[start:stop], bytes(self._flags[start:stop]), self._modseqs[start:stop]
        )

    def all_keywords(self) -> list[str]:
        """Return the keywords of all messages, sorted."""
        if not self._keywords:
            return []
        if self._words[0] != self.cursor:
            words = sorted({word for words in self._keywords.values() for word in words})
            self._words = self.cursor, words
        return list(self._words[1])

    def first_unseen(self) -> int:
        """Return the UID of the first message that is not seen; 0 if there is none."""
        if self._unseen[0] != self.cursor:
            found = _UNSEEN.search(self._flags)
            self._unseen = self.cursor, self.uids[found.start()] if found else 0
        return self._unseen[1]

    def changed_since(self, modseq: int) -> Sequence[MessageState]:
        """Return all messages with a larger modification sequence."""
        if self._changed[:2] != (self.cursor, modseq):
            # Sessions that wait for news ask for the same.
            found = [self._at(place) for place, one in enumerate(self._modseqs) if one > modseq]
            self._changed = self.cursor, modseq, found
        return self._changed[2]

    def view(self) -> FolderView:
        """Return a new session's view, which sees all there is."""
        view = FolderView(self)
        self._views.add(view)
        return view


class FolderView:
    """What one session sees of a folder.

    Attributes:
        state: what it shares.
        cursor: the modification sequence up to which it has been told.
        uidnext: larger than every UID that it has been told.
    """

    __slots__ = ("__weakref__", "_ghosts", "_merged", "cursor", "state", "uidnext")

    def __init__(self, state: FolderState) -> None:
        self.state = state
        self.cursor = state.cursor
        self.uidnext = state.uidnext
        self._ghosts: list[int] = []
        self._merged: Sequence[int] | None = None

    def lose(self, uids: Iterable[int]) -> None:
        """Keep messages that have just left the state until they may be told."""
        mine = [uid for uid in uids if uid < self.uidnext]
        if mine:
            self._ghosts = sorted({*self._ghosts, *mine})
            self._merged = None

    def uids(self) -> Sequence[int]:
        """Return what the session sees, ascending."""
        shared = self.state.uids
        if not self._ghosts and (not shared or shared[-1] < self.uidnext):
            return shared
        if self._merged is None:
            told = shared[: bisect_left(shared, self.uidnext)]
            self._merged = sorted([*told, *self._ghosts])
        return self._merged

    def columns(self, places: range) -> Columns:
        """Return what messages have that the session sees."""
        if not self._ghosts:  # what it sees is how the shared ones begin
            return self.state.columns(places.start, places.stop)
        return columns_of(self.uids()[places.start : places.stop], self.state.message)

    def is_current(self) -> bool:
        """Return whether `advance` would return nothing."""
        return self.cursor == self.state.cursor and not self._ghosts

    def advance(self, *, expunge: bool) -> Changes:
        """See what the state has now; return what is new about it."""
        changed: list[MessageState] = []
        arrived: list[MessageState] = []
        if self.state.cursor > self.cursor:
            for one in self.state.changed_since(self.cursor):
                (changed if one.uid < self.uidnext else arrived).append(one)
            self.cursor, self.uidnext = self.state.cursor, self.state.uidnext
        gone: list[int] = []
        if expunge:
            gone, self._ghosts = self._ghosts, []
        self._merged = None
        return Changes(self.cursor, self.uidnext, arrived, changed, gone)
