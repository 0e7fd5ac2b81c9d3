"""Which command is parsed by what, and in which states it is allowed (RFC 3501 6).

Rules of this file: a table, and the look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fastlisten.handlers.imap.engine.commands import (
    Capability,
    Check,
    Close,
    Event,
    Idle,
    Logout,
    Namespace,
    Noop,
    StartTls,
)
from fastlisten.handlers.imap.engine.parse_append import parse_append
from fastlisten.handlers.imap.engine.parse_mailboxes import (
    parse_create,
    parse_delete,
    parse_examine,
    parse_get_quota,
    parse_get_quota_root,
    parse_list,
    parse_lsub,
    parse_rename,
    parse_select,
    parse_set_quota,
    parse_status,
    parse_subscribe,
    parse_unsubscribe,
)
from fastlisten.handlers.imap.engine.parse_messages import (
    parse_copy,
    parse_expunge,
    parse_fetch,
    parse_move,
    parse_store,
)
from fastlisten.handlers.imap.engine.parse_search import parse_search
from fastlisten.handlers.imap.engine.parse_session import (
    parse_authenticate,
    parse_enable,
    parse_id,
    parse_login,
)
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner
from fastlisten.handlers.imap.engine.session_states import State

__all__ = ["HEAD", "Entry", "find", "tag_of"]

#: The longest tag. Clients use less than ten octets; every response to a command repeats it.
_LONGEST_TAG = 128

_TAG = rb"([!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]{1,%d}+)" % _LONGEST_TAG

#: A tag, the command's name with UID before it, and the space before the arguments.
HEAD = re.compile(_TAG + rb" ((?:[Uu][Ii][Dd] )?[A-Za-z][A-Za-z0-9-]{0,30}+)(?: ++|\Z)")
_TAG_ONLY = re.compile(_TAG + rb"(?= |\Z)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A command.

    Attributes:
        name: in upper case.
        states: where it is allowed, as bits of `State`.
        parse: makes an event of the arguments; None if there are none.
        event: the event of a command without arguments.
        checked: there is more to check than syntax and state.
    """

    name: str
    states: int
    parse: Callable[[Scanner], Event] | None = None
    event: Event | None = None
    checked: bool = False


_BEFORE = State.NOT_AUTHENTICATED
_AFTER = State.AUTHENTICATED | State.SELECTED
_SELECTED = State.SELECTED
_ANY = _BEFORE | _AFTER


def _fetch(scanner: Scanner) -> Event:
    return parse_fetch(scanner, False)


def _uid_fetch(scanner: Scanner) -> Event:
    return parse_fetch(scanner, True)


def _store(scanner: Scanner) -> Event:
    return parse_store(scanner, False)


def _uid_store(scanner: Scanner) -> Event:
    return parse_store(scanner, True)


def _search(scanner: Scanner) -> Event:
    return parse_search(scanner, False)


def _uid_search(scanner: Scanner) -> Event:
    return parse_search(scanner, True)


def _copy(scanner: Scanner) -> Event:
    return parse_copy(scanner, False)


def _uid_copy(scanner: Scanner) -> Event:
    return parse_copy(scanner, True)


def _move(scanner: Scanner) -> Event:
    return parse_move(scanner, False)


def _uid_move(scanner: Scanner) -> Event:
    return parse_move(scanner, True)


def _expunge(scanner: Scanner) -> Event:
    return parse_expunge(scanner, False)


def _uid_expunge(scanner: Scanner) -> Event:
    return parse_expunge(scanner, True)


_TABLE: dict[bytes, Entry] = {
    entry.name.encode("ascii"): entry
    for entry in (
        Entry("CAPABILITY", _ANY, event=Capability()),
        Entry("NOOP", _ANY, event=Noop()),
        Entry("LOGOUT", _ANY, event=Logout()),
        Entry("ID", _ANY, parse_id),
        Entry("STARTTLS", _BEFORE, event=StartTls(), checked=True),
        Entry("LOGIN", _BEFORE, parse_login, checked=True),
        Entry("AUTHENTICATE", _BEFORE, parse_authenticate, checked=True),
        Entry("ENABLE", _AFTER, parse_enable),
        Entry("SELECT", _AFTER, parse_select, checked=True),
        Entry("EXAMINE", _AFTER, parse_examine, checked=True),
        Entry("CREATE", _AFTER, parse_create),
        Entry("DELETE", _AFTER, parse_delete),
        Entry("RENAME", _AFTER, parse_rename),
        Entry("SUBSCRIBE", _AFTER, parse_subscribe),
        Entry("UNSUBSCRIBE", _AFTER, parse_unsubscribe),
        Entry("LIST", _AFTER, parse_list, checked=True),
        Entry("LSUB", _AFTER, parse_lsub),
        Entry("NAMESPACE", _AFTER, event=Namespace()),
        Entry("STATUS", _AFTER, parse_status, checked=True),
        Entry("APPEND", _AFTER, parse_append),
        Entry("IDLE", _AFTER, event=Idle()),
        Entry("GETQUOTA", _AFTER, parse_get_quota),
        Entry("GETQUOTAROOT", _AFTER, parse_get_quota_root),
        Entry("SETQUOTA", _AFTER, parse_set_quota),
        Entry("CHECK", _SELECTED, event=Check()),
        Entry("CLOSE", _SELECTED, event=Close()),
        Entry("UNSELECT", _SELECTED, event=Close(expunge=False)),
        Entry("EXPUNGE", _SELECTED, _expunge),
        Entry("UID EXPUNGE", _SELECTED, _uid_expunge),
        Entry("SEARCH", _SELECTED, _search, checked=True),
        Entry("UID SEARCH", _SELECTED, _uid_search, checked=True),
        Entry("FETCH", _SELECTED, _fetch, checked=True),
        Entry("UID FETCH", _SELECTED, _uid_fetch, checked=True),
        Entry("STORE", _SELECTED, _store, checked=True),
        Entry("UID STORE", _SELECTED, _uid_store, checked=True),
        Entry("COPY", _SELECTED, _copy),
        Entry("UID COPY", _SELECTED, _uid_copy),
        Entry("MOVE", _SELECTED, _move),
        Entry("UID MOVE", _SELECTED, _uid_move),
    )
}


def find(name: bytes, state: State) -> Entry:
    """Return a command.

    Args:
        name: in any case, with UID before it.
        state: where the session is.

    Raises:
        Refused: there is none, or it is not allowed now.
    """
    entry = _TABLE.get(name) or _TABLE.get(name.upper())
    if entry is None:
        raise Refused("Unknown command")
    if not entry.states & state:
        if state is State.NOT_AUTHENTICATED:
            raise Refused("Please login first")
        if entry.states is _SELECTED:
            raise Refused("No mailbox selected")
        raise Refused("Already logged in")
    return entry


def tag_of(line: bytes) -> bytes:
    """Return the tag with which a line begins that is no command; empty if there is none."""
    match = _TAG_ONLY.match(line)
    return b"" if match is None else match[1]
