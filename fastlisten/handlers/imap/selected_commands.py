"""Commands about the selected mailbox: FETCH, STORE, SEARCH, EXPUNGE, COPY, MOVE, NOOP and CHECK.

Rules of this file: from an event to the tagged response, and what is told before it; the work is
done by fetching.py, searching.py and message_commands.py. Messages are not told to be gone in
answers to commands with message numbers (RFC 3501 7.4.1).
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import (
    Check,
    Copy,
    Expunge,
    Fetch,
    Move,
    Noop,
    Search,
    Store,
)
from fastlisten.handlers.imap.fetching import fetch
from fastlisten.handlers.imap.message_commands import copy, expunge, move, store
from fastlisten.handlers.imap.searching import search
from fastlisten.handlers.imap.session_state import Commands, SessionState, Work

__all__ = ["SELECTED_COMMANDS"]


def _noop(session: SessionState, _: Noop) -> Work | None:
    return session.tell_at_once("NOOP completed.")


def _check(session: SessionState, _: Check) -> Work | None:
    return session.tell_at_once("Check completed.")


async def _fetch(session: SessionState, event: Fetch) -> None:
    if await fetch(event, session.selected(), session.client()):
        await session.tell("Fetch completed.", expunge=event.uid, uid=event.uid)
    else:
        text = "Some messages were already expunged."
        await session.tell(text, codes.EXPUNGEISSUED, expunge=event.uid, uid=event.uid)


async def _store(session: SessionState, event: Store) -> None:
    code = await store(event, session.selected(), session.client())
    text = "Conditional store failed." if code else "Store completed."
    await session.tell(text, code, expunge=event.uid, uid=event.uid)


async def _search(session: SessionState, event: Search) -> None:
    longest = session.services.rules.search_timeout
    await search(event, session.selected(), session.client(), longest)
    await session.tell("Search completed.", expunge=event.uid, uid=event.uid)


async def _expunge(session: SessionState, event: Expunge) -> None:
    mailbox = session.selected()
    await expunge(event, mailbox)
    await mailbox.tell(expunge=True, highest=False)
    session.engine.ok("Expunge completed.", _highest_modseq(session))  # RFC 7162 3.2.7


async def _copy(session: SessionState, event: Copy) -> None:
    code = await copy(event, session.selected())
    await session.tell("Copy completed.", code, uid=event.uid)


async def _move(session: SessionState, event: Move) -> None:
    mailbox = session.selected()
    await move(event, mailbox, session.client())
    await mailbox.tell(expunge=True, uid=event.uid, highest=False)
    session.engine.ok("Move completed.", _highest_modseq(session))  # RFC 7162 3.2.9


def _highest_modseq(session: SessionState) -> bytes:
    if "QRESYNC" not in session.engine.enabled:
        return b""
    return codes.highest_modseq(session.selected().folder.highestmodseq)


SELECTED_COMMANDS: Commands = {
    Noop: _noop,
    Check: _check,
    Fetch: _fetch,
    Store: _store,
    Search: _search,
    Expunge: _expunge,
    Copy: _copy,
    Move: _move,
}
