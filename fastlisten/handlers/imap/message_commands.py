"""Commands that change messages of the selected mailbox: STORE, EXPUNGE, COPY and MOVE.

Rules of this file: from a command to the store and back to responses. What else has happened in
the mailbox, and the tagged response, are the session's.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.handlers.imap.connection_interface import Connection
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import Copy, Expunge, Move, Store
from fastlisten.handlers.imap.engine.message_responses import (
    fetch_response,
    item_modseq,
    item_uid,
)
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.message_flags import split_flags
from fastlisten.handlers.imap.message_sets import place_of, uids_of
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.mail.store.interface import (
    Copied,
    Flag,
    MessageGoneError,
    MessageState,
    StoreMode,
)

__all__ = ["copy", "expunge", "move", "store"]

#: Messages whose flags are changed before others have their turn: 10 ms.
STORED_AT_ONCE = 1000

_MODES = {"+": StoreMode.ADD, "-": StoreMode.REMOVE, "=": StoreMode.SET}


async def store(command: Store, mailbox: SelectedMailbox, connection: Connection) -> bytes:
    """Carry out STORE; return the response code, MODIFIED or none.

    Raises:
        Rejected: the mailbox is read-only, a number is not in use, or a flag cannot be stored.
        StoreError: the store cannot do it.
    """
    folder = mailbox.writable()
    uids = uids_of(mailbox.places(command.messages, uid=command.uid), folder.uids())
    modified: list[int] = []
    for start in range(0, max(1, len(uids)), STORED_AT_ONCE):
        if start:
            await connection.flush()
        some = uids[start : start + STORED_AT_ONCE]
        modified += await _store(command, some, mailbox, connection)
    if not modified:
        return b""
    if command.uid:
        return codes.modified(modified)
    mine = folder.uids()
    places = [place_of(uid, mine) for uid in modified]
    return codes.modified([place + 1 for place in places if place >= 0])


async def _store(
    command: Store, uids: Sequence[int], mailbox: SelectedMailbox, connection: Connection
) -> Sequence[int]:
    """Change some messages, and say it; return the UIDs of those that others have changed."""
    folder = mailbox.folder
    flags, keywords = split_flags(command.flags)
    mode = _MODES[command.mode]
    known = _known(mailbox, uids) if command.silent else {}
    try:
        stored = await folder.store(uids, mode, flags, keywords, command.unchanged_since)
    except ValueError as error:
        raise Rejected("Invalid flag", codes.CANNOT) from error
    mailbox.note_told(stored.changed)
    if not command.silent:
        changed = {one.uid: one for one in stored.changed}
        kept = set(stored.modified)
        states = []
        for uid in uids:
            if uid in kept:
                continue
            try:
                # A message that had these flags before is answered too: clients wait for that.
                states.append(changed.get(uid) or folder.state(uid))
            except MessageGoneError:
                continue
        await mailbox.say_changed(states, uid=command.uid)
    else:
        expected, unexpected = [], []
        for one in stored.changed:
            before = known.get(one.uid)
            if before is not None and _same(one, *_applied(before, mode, flags, keywords)):
                expected.append(one)
            else:
                unexpected.append(one)
        await mailbox.say_changed(unexpected, uid=command.uid)
        if connection.engine.condstore:
            await _say_modseqs(expected, mailbox, connection, uid=command.uid)
    return stored.modified


def _known(mailbox: SelectedMailbox, uids: Sequence[int]) -> dict[int, MessageState]:
    """Return the states of messages as far as the client knows them.

    What others have changed meanwhile is said in spite of .SILENT, so that the client can tell what
    flags a message has (RFC 3501 6.4.6).
    """
    found = {}
    for uid in uids:
        try:
            state = mailbox.folder.state(uid)
        except MessageGoneError:
            continue
        if mailbox.is_told(state):
            found[uid] = state
    return found


def _applied(
    state: MessageState, mode: StoreMode, flags: Flag, keywords: Sequence[str]
) -> tuple[Flag, set[str]]:
    """Return the flags and keywords that a client expects after STORE; keywords in lower case."""
    words = {word.lower() for word in keywords}
    had = {word.lower() for word in state.keywords}
    if mode is StoreMode.ADD:
        return state.flags | flags, had | words
    if mode is StoreMode.REMOVE:
        return state.flags & ~flags, had - words
    return flags, words


def _same(state: MessageState, flags: Flag, keywords: set[str]) -> bool:
    return state.flags == flags and {word.lower() for word in state.keywords} == keywords


async def _say_modseqs(
    states: Sequence[MessageState],
    mailbox: SelectedMailbox,
    connection: Connection,
    *,
    uid: bool,
) -> None:
    """Say MODSEQ alone: a client that knows the flags has to learn it (RFC 7162 3.1.3)."""
    engine, folder = connection.engine, mailbox.folder
    uid = uid or "QRESYNC" in engine.enabled
    for one in states:
        place = place_of(one.uid, folder.uids())
        if place >= 0:
            items = [item_uid(one.uid)] if uid else []
            response = fetch_response(place + 1, [*items, item_modseq(one.modseq)])
            engine.send(response)
            if connection.is_due(len(response)):
                await connection.flush()


async def expunge(command: Expunge, mailbox: SelectedMailbox) -> None:
    """Carry out EXPUNGE; the messages are said to be gone afterwards.

    Raises:
        Rejected: the mailbox is read-only.
        StoreError: the store cannot do it.
    """
    folder = mailbox.writable()
    if command.uids is None:
        await folder.expunge()
    else:
        await folder.expunge(uids_of(mailbox.places(command.uids, uid=True), folder.uids()))


async def copy(command: Copy, mailbox: SelectedMailbox) -> bytes:
    """Carry out COPY; return the response code, COPYUID or none.

    Raises:
        Rejected: a number is not in use.
        StoreError: the store cannot do it.
    """
    folder = mailbox.folder
    uids = uids_of(mailbox.places(command.messages, uid=command.uid), folder.uids())
    return _copied(await folder.copy(uids, command.mailbox))


async def move(command: Move, mailbox: SelectedMailbox, connection: Connection) -> None:
    """Carry out MOVE; say COPYUID (RFC 6851 4.3).

    Raises:
        Rejected: the mailbox is read-only, or a number is not in use.
        StoreError: the store cannot do it.
    """
    folder = mailbox.writable()
    uids = uids_of(mailbox.places(command.messages, uid=command.uid), folder.uids())
    code = _copied(await folder.move(uids, command.mailbox))
    if code:
        connection.engine.send(status(b"*", b"OK", "Moved UIDs.", code))


def _copied(copied: Copied) -> bytes:
    if not copied.sources:
        return b""
    return codes.copy_uid(copied.uidvalidity, copied.sources, copied.targets)
