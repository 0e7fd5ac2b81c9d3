"""The selected mailbox: what the session sees of it, and telling the client of its changes.

Rules of this file: what may be said when. A session's message numbers change with `tell` alone,
which is called at the end of a command, or in IDLE. In the order of the responses:

    EXPUNGE or VANISHED     not in the answers to FETCH, STORE and SEARCH (RFC 3501 7.4.1)
    EXISTS, RECENT          RFC 3501 7.3
    FLAGS                   before the first message that has a new keyword
    FETCH                   flags that others have changed

The session's own changes are not told twice: `told` notes what the client knows already.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from fastlisten.handlers.imap.connection_interface import Connection
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.message_responses import (
    exists_response,
    expunge_responses,
    fetch_flags_modseq_responses,
    fetch_flags_responses,
    fetch_uid_flags_modseq_responses,
    fetch_uid_flags_responses,
    flags_response,
    recent_response,
    vanished_response,
)
from fastlisten.handlers.imap.engine.sequence_sets import SequenceSet
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.engine.strings import write_flags
from fastlisten.handlers.imap.message_flags import SYSTEM_FLAGS, written_flags
from fastlisten.handlers.imap.message_sets import place_of, places_of
from fastlisten.handlers.imap.rejection import MailboxDeletedError, Rejected
from fastlisten.mail.store.interface import (
    Changes,
    Folder,
    FolderNotFoundError,
    MessageState,
)

__all__ = ["SelectedMailbox"]

#: Messages whose flags are said at once: some 40 kB, 2 ms.
SAID_AT_ONCE = 1000


class SelectedMailbox:
    """A mailbox from SELECT or EXAMINE until it is closed.

    Args:
        folder: it, as the store has it.
        connection: the client's.

    Attributes:
        folder: as given.
        saved: UIDs that ``$`` stands for, ascending (RFC 5182); they may be gone.
    """

    __slots__ = (
        "_connection",
        "_engine",
        "_exists",
        "_highest",
        "_keywords",
        "_recent",
        "_told",
        "folder",
        "saved",
    )

    def __init__(self, folder: Folder, connection: Connection) -> None:
        self.folder = folder
        self.saved: Sequence[int] = ()
        self._connection = connection
        self._engine = connection.engine
        self._exists = len(folder.uids())
        self._recent = self._count_recent()
        self._keywords = tuple(folder.keywords())
        self._told: dict[int, int] | None = None  # most sessions change nothing
        self._highest = 0  # the last HIGHESTMODSEQ or MODSEQ of a change that was said

    def _count_recent(self) -> int:
        uids = self.folder.uids()
        return sum(
            bisect_left(uids, one.stop) - bisect_left(uids, one.start) for one in self.folder.recent
        )

    # --- SELECT -------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say what SELECT and EXAMINE say (RFC 3501 6.3.1), up to what QRESYNC adds."""
        folder, engine = self.folder, self._engine
        self._say_flags()
        engine.send(exists_response(self._exists) + recent_response(self._recent))
        first = folder.first_unseen()
        if first:
            self._say("First unseen.", codes.unseen(first))
        self._say("UIDs valid", codes.uid_validity(folder.uidvalidity))
        self._say("Predicted next UID", codes.uid_next(folder.uidnext))
        self.say_highest_modseq()
        self._say("Mailbox identifier", codes.mailbox_id(folder.mailbox_id))

    def _say(self, text: str, code: bytes) -> None:
        self._engine.send(status(b"*", b"OK", text, code))

    def say_highest_modseq(self) -> None:
        """Say HIGHESTMODSEQ (RFC 7162 3.1.2)."""
        self._highest = self.folder.highestmodseq
        self._say("Highest", codes.highest_modseq(self._highest))

    def _say_flags(self) -> None:
        names = (*SYSTEM_FLAGS, *self._keywords)
        self._engine.send(flags_response(write_flags(names)))
        if self.folder.read_only:
            self._say("No permanent flags permitted.", codes.permanent_flags((), new=False))
        else:
            self._say("Flags permitted.", codes.permanent_flags(names, new=True))

    # --- messages -----------------------------------------------------------------------------

    def places(self, messages: SequenceSet, *, uid: bool) -> list[range]:
        """Return where the messages of a command are.

        Raises:
            Rejected: a message number is not in use (RFC 3501 9).
        """
        uids = self.folder.uids()
        if not uid and messages.exceeds(len(uids)):
            raise Rejected("Invalid messageset", bad=True)
        return places_of(messages, uids, self.saved, uid=uid)

    def writable(self) -> Folder:
        """Return the folder.

        Raises:
            Rejected: it was opened by EXAMINE.
        """
        if self.folder.read_only:
            raise Rejected("Mailbox is read-only", codes.READ_ONLY)
        return self.folder

    def is_recent(self, uid: int) -> bool:
        r"""Return whether a message is ``\Recent``."""
        return any(uid in one for one in self.folder.recent)

    def flags_of(self, state: MessageState) -> bytes:
        """Return the flags of a message as they are written; say new keywords first."""
        if state.keywords:
            self._note_keywords(state.keywords)
        return written_flags(state, recent=self.is_recent(state.uid))

    def _note_keywords(self, keywords: Sequence[str]) -> None:
        known = self._keywords
        new = [word for word in keywords if word not in known]
        if new:
            self._keywords = tuple(sorted([*known, *new]))
            self._say_flags()

    # --- changes ------------------------------------------------------------------------------

    def is_told(self, state: MessageState) -> bool:
        """Return whether the client knows that a message has this."""
        if state.modseq <= self.folder.highestmodseq:
            return True
        return self._told is not None and self._told.get(state.uid) == state.modseq

    def note_told(self, states: Iterable[MessageState]) -> None:
        """Note that the client knows what these messages have now, or does not want to."""
        told = self._told = self._told or {}
        for one in states:
            told[one.uid] = one.modseq
            self._highest = max(self._highest, one.modseq)

    def is_current(self) -> bool:
        """Return whether there is nothing to `tell`."""
        return self.folder.is_current() and (
            "QRESYNC" not in self._engine.enabled or self.folder.highestmodseq <= self._highest
        )

    async def tell(self, *, expunge: bool, uid: bool = False, highest: bool = True) -> None:
        """Take over what has happened, and say it.

        A client that synchronises by QRESYNC is also told HIGHESTMODSEQ, if no answer has had it.
        Otherwise it would not know the one of messages that came, and take them as changed when it
        is here again; interimap even merges their flags with those that the other side has now.

        Args:
            expunge: messages may be said to be gone.
            uid: UIDs are to be said with flags (RFC 3501 6.4.8).
            highest: HIGHESTMODSEQ may be said; the answer to some commands has it.

        Raises:
            MailboxDeletedError: it is no more.
        """
        try:
            changes = await self.folder.sync(expunge=expunge)
        except FolderNotFoundError as error:
            raise MailboxDeletedError from error
        if not changes.complete:
            raise MailboxDeletedError
        self._tell_numbers(changes)
        told, self._told = self._told or {}, None
        if changes.changed:
            await self.say_changed(
                [one for one in changes.changed if told.get(one.uid) != one.modseq], uid=uid
            )
            self._highest = max(self._highest, *(one.modseq for one in changes.changed))
        # Only if all is told that it stands for, messages that are gone too.
        highest = highest and expunge and "QRESYNC" in self._engine.enabled
        if highest and self.folder.highestmodseq > self._highest:
            self.say_highest_modseq()

    def _tell_numbers(self, changes: Changes) -> None:
        engine, uids, gone = self._engine, self.folder.uids(), changes.gone
        if gone:
            if "QRESYNC" in engine.enabled:
                engine.send(vanished_response(gone))
            else:
                # What is left below a message says where it was, once those before it are gone.
                engine.send(expunge_responses([bisect_left(uids, one) + 1 for one in gone]))
        exists, recent = len(uids), self._count_recent()
        if exists != self._exists - len(gone):
            engine.send(exists_response(exists))
        if recent != self._recent:
            engine.send(recent_response(recent))
        self._exists, self._recent = exists, recent

    async def say_changed(self, states: Sequence[MessageState], *, uid: bool) -> None:
        """Say what flags messages have; those that the client does not know are left out."""
        for start in range(0, len(states), SAID_AT_ONCE):
            if start:
                await self._connection.flush()
            self._say_some(states[start : start + SAID_AT_ONCE], uid=uid)

    def _say_some(self, states: Iterable[MessageState], *, uid: bool) -> None:
        engine, uids = self._engine, self.folder.uids()
        rows = []
        for one in states:
            place = place_of(one.uid, uids)
            if place >= 0:
                rows.append((place + 1, one.uid, self.flags_of(one), one.modseq))
        # RFC 7162 3.2.4: a client with QRESYNC is always told the UID.
        uid = uid or "QRESYNC" in engine.enabled
        if not rows:
            return
        if engine.condstore:
            if uid:
                engine.send(fetch_uid_flags_modseq_responses(rows))
            else:
                engine.send(fetch_flags_modseq_responses([(n, f, m) for n, _, f, m in rows]))
        elif uid:
            engine.send(fetch_uid_flags_responses([(n, u, f) for n, u, f, _ in rows]))
        else:
            engine.send(fetch_flags_responses([(n, f) for n, _, f, _ in rows]))
