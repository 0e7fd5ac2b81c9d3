"""Commands that name mailboxes: LIST, STATUS, CREATE, SELECT, APPEND and so on; CLOSE.

Rules of this file: from an event to the tagged response. What LIST and STATUS say is made by
mailbox_commands.py, what SELECT says by selected_mailbox.py.
"""

from __future__ import annotations

from fastlisten.handlers.imap.appending import Appending
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Close,
    Create,
    Delete,
    Expunge,
    List,
    Lsub,
    Qresync,
    Rename,
    Select,
    Status,
    Subscribe,
)
from fastlisten.handlers.imap.engine.session_states import State
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.mailbox_commands import (
    create,
    list_mailboxes,
    list_subscribed,
    status_of,
)
from fastlisten.handlers.imap.message_commands import expunge
from fastlisten.handlers.imap.message_sets import places_of
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.handlers.imap.session_state import Commands, SessionState, Work
from fastlisten.handlers.imap.vanished import vanished_earlier

__all__ = ["FOLDER_COMMANDS"]


async def _list(session: SessionState, event: List) -> None:
    largest = session.services.limits.max_message_size
    await list_mailboxes(session.mail(), event, largest, session.client())
    session.engine.ok("List completed.")


async def _lsub(session: SessionState, event: Lsub) -> None:
    await list_subscribed(session.mail(), event, session.client())
    session.engine.ok("Lsub completed.")


async def _status(session: SessionState, event: Status) -> None:
    largest = session.services.limits.max_message_size
    session.engine.send(await status_of(session.mail(), event.mailbox, event.items, largest))
    session.engine.ok("Status completed.")


async def _create(session: SessionState, event: Create) -> None:
    session.engine.ok("Create completed.", await create(session.mail(), event))


async def _rename(session: SessionState, event: Rename) -> None:
    await session.mail().rename(event.old, event.new)
    session.engine.ok("Rename completed.")


async def _subscribe(session: SessionState, event: Subscribe) -> None:
    await session.mail().subscribe(event.mailbox, event.subscribed)
    session.engine.ok("Subscribe completed." if event.subscribed else "Unsubscribe completed.")


async def _delete(session: SessionState, event: Delete) -> None:
    """Delete a mailbox; if it is the selected one, none is selected any more."""
    account, mailbox, engine = session.mail(), session.mailbox, session.engine
    name = event.mailbox
    selected = mailbox is not None and (
        (await account.status(name)).mailbox_id == mailbox.folder.mailbox_id
    )
    await account.delete(name)
    if selected:
        session.close_mailbox()
        engine.send(status(b"*", b"OK", "Selected mailbox was deleted.", codes.CLOSED))
    engine.ok("Delete completed.")
    if selected:
        engine.state = State.AUTHENTICATED


# --- SELECT and its end ---------------------------------------------------------------------------


async def _select(session: SessionState, event: Select) -> None:
    engine = session.engine
    session.close_mailbox()
    if event.closed:
        engine.send(status(b"*", b"OK", "Previous mailbox closed.", codes.CLOSED))
    folder = await session.mail().open(event.mailbox, read_only=event.read_only)
    try:
        mailbox = SelectedMailbox(folder, session.client())
        mailbox.greet()
        if event.qresync is not None:
            await _resynchronise(session, mailbox, event.qresync)
    except BaseException:
        folder.close()
        raise
    session.mailbox = mailbox
    if event.read_only:
        engine.ok("Examine completed.", codes.READ_ONLY)
    else:
        engine.ok("Select completed.", codes.READ_WRITE)


async def _resynchronise(session: SessionState, mailbox: SelectedMailbox, known: Qresync) -> None:
    """Say what has happened since a client was here last (RFC 7162 3.2.5)."""
    folder = mailbox.folder
    if known.uidvalidity != folder.uidvalidity:
        return
    changes = await folder.changes(known.modseq)
    session.engine.send(vanished_earlier(changes, folder.uids(), known.known_uids))
    states = sorted((*changes.changed, *changes.arrived), key=lambda one: one.uid)
    if known.known_uids is not None:
        uids = [one.uid for one in states]
        wanted = places_of(known.known_uids, uids, (), uid=True)
        states = [states[place] for one in wanted for place in one]
    await mailbox.say_changed(states, uid=True)


async def _close(session: SessionState, event: Close) -> None:
    mailbox = session.selected()
    code = b""
    if event.expunge and not mailbox.folder.read_only:
        await expunge(Expunge(), mailbox)
        if session.engine.condstore:
            # RFC 7162 3.2.8: the client was not told what is gone, but that something is.
            await mailbox.folder.sync()
            code = codes.highest_modseq(mailbox.folder.highestmodseq)
    session.close_mailbox()
    session.engine.ok("Close completed." if event.expunge else "Unselect completed.", code)


# --- APPEND ---------------------------------------------------------------------------------------


def _append(session: SessionState, event: AppendMessage) -> Work:
    if session.appending is None:
        session.appending = Appending(session.mail(), session.client(), session.services)
    return session.appending.begin(event)


def _append_octets(session: SessionState, event: AppendOctets) -> Work | None:
    return None if session.appending is None else session.appending.add(event)


async def _append_end(session: SessionState, _: AppendEnd) -> None:
    assert session.appending is not None
    code = await session.appending.end()
    session.appending = None
    await session.tell("Append completed.", code)


FOLDER_COMMANDS: Commands = {
    List: _list,
    Lsub: _lsub,
    Status: _status,
    Create: _create,
    Delete: _delete,
    Rename: _rename,
    Subscribe: _subscribe,
    Select: _select,
    Close: _close,
    AppendMessage: _append,
    AppendOctets: _append_octets,
    AppendEnd: _append_end,
}
