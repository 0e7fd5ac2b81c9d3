"""Commands about mailboxes that need none to be selected: LIST, LSUB, STATUS, CREATE and so on.

Rules of this file: from a command and the store's answers to responses. The tagged response is the
session's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from fastlisten.handlers.imap.connection_interface import Connection
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import Create, List, Lsub
from fastlisten.handlers.imap.engine.mailbox_responses import (
    list_response,
    lsub_response,
    status_response,
)
from fastlisten.handlers.imap.list_matching import matcher
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.mail.store.interface import (
    Account,
    FolderRefusedError,
    Listed,
    StoreError,
)

__all__ = ["create", "list_mailboxes", "list_subscribed", "status_of"]

#: Special uses that a mailbox can have (RFC 6154). ``All`` and ``Flagged`` are views of other
#: mailboxes' messages, which the store does not have.
_ROLES = frozenset({"Archive", "Drafts", "Junk", "Sent", "Trash"})

SEPARATOR = "/"

#: Characters of all patterns of a command, the reference before each: more than a command has.
_LONGEST_PATTERNS = 1 << 16


# --- STATUS ---------------------------------------------------------------------------------------


async def status_of(
    account: Account, name: str, items: Sequence[str], max_message_size: int
) -> bytes:
    """Return the response to STATUS.

    Args:
        account: whose.
        name: of the mailbox.
        items: what is asked for.
        max_message_size: APPENDLIMIT.

    Raises:
        StoreError: there is no such mailbox, or it cannot be read.
    """
    it = await account.status(name)
    values: dict[str, int | str | None] = {
        "MESSAGES": it.messages,
        "RECENT": it.recent,
        "UIDNEXT": it.uidnext,
        "UIDVALIDITY": it.uidvalidity,
        "UNSEEN": it.unseen,
        "DELETED": it.deleted,
        "SIZE": it.size,
        "HIGHESTMODSEQ": it.highestmodseq,
        "MAILBOXID": it.mailbox_id,
        "APPENDLIMIT": max_message_size,
    }
    if "DELETED-STORAGE" in items:  # RFC 9208 4.1.4
        values["DELETED-STORAGE"] = await account.deleted_size(name)
    return status_response(name, {item: values[item] for item in items})


# --- CREATE ---------------------------------------------------------------------------------------


async def create(account: Account, command: Create) -> bytes:
    """Make a mailbox; return the response code that names it (RFC 8474 4.1).

    Raises:
        Rejected: it cannot have that special use.
        StoreError: it cannot be made.
    """
    roles = command.roles
    if len(roles) > 1 or not _ROLES.issuperset(roles):
        raise Rejected("Special use is not supported", codes.USEATTR)
    # RFC 3501 6.3.3: a separator at the end says that there will be mailboxes below it.
    name = command.mailbox.removesuffix(SEPARATOR)
    if not name:
        raise FolderRefusedError("Invalid mailbox name")
    await account.create(name, roles[0] if roles else "")
    return codes.mailbox_id((await account.status(name)).mailbox_id)


# --- LIST -----------------------------------------------------------------------------------------


def _above(names: Iterable[str]) -> set[str]:
    """Return all names that are above some names."""
    found = set()
    for name in names:
        end = name.rfind(SEPARATOR)
        while end > 0 and name[:end] not in found:
            found.add(name[:end])
            end = name.rfind(SEPARATOR, 0, end)
    return found


async def _matching(
    names: Iterable[str], reference: str, patterns: Sequence[str], connection: Connection
) -> set[str]:
    """Return those names that match one of some patterns; others have their turn meanwhile.

    Raises:
        Rejected: the patterns are too long.
    """
    if sum(map(len, patterns)) + len(patterns) * len(reference) > _LONGEST_PATTERNS:
        raise Rejected("Mailbox patterns are too long", codes.LIMIT)
    matches = matcher(tuple(reference + pattern for pattern in patterns))
    found = set()
    for name in names:
        if matches(name):
            found.add(name)
        if connection.is_due(0):
            await connection.flush()
    return found


async def list_mailboxes(
    account: Account, command: List, max_message_size: int, connection: Connection
) -> None:
    """Send the responses to LIST, with those of STATUS if they are asked for.

    Raises:
        Rejected: RECURSIVEMATCH is alone (RFC 5258 3), or the patterns are too long.
        StoreError: mailboxes cannot be read.
    """
    select, returns = command.select, command.returns
    if "RECURSIVEMATCH" in select and not select & {"SUBSCRIBED", "SPECIAL-USE"}:
        raise Rejected("RECURSIVEMATCH needs another selection option", bad=True)
    if command.patterns == ("",) and not command.extended:
        connection.engine.send(list_response("", ("\\Noselect",)))
        return
    listed = await account.folders()
    names = [one.name for one in listed]
    matching = await _matching(names, command.reference, command.patterns, connection)
    with_children = _above(one.name for one in listed if one.exists)

    def fits(one: Listed) -> bool:
        return ("SUBSCRIBED" not in select or one.subscribed) and (
            "SPECIAL-USE" not in select or bool(one.role)
        )

    chosen = {one.name for one in listed if fits(one)}
    hidden: set[str] = set()  # above mailboxes that are chosen, but not listed
    below: set[str] = set()
    if "RECURSIVEMATCH" in select:
        below = _above(chosen)
        hidden = _above(chosen - matching)
    for one in listed:
        name = one.name
        if name not in matching:
            continue
        there = one.exists or name in with_children
        if name in chosen:
            if not ("SUBSCRIBED" in select or there):
                continue
        elif name not in hidden:
            continue
        attributes = _attributes(one, command, has_children=name in with_children)
        response = list_response(name, attributes, subscribed_children=name in below)
        if "STATUS" in returns and one.exists:
            # RFC 5819 2: without it, if it was deleted meanwhile or cannot be read.
            with contextlib.suppress(StoreError):
                response += await status_of(account, name, command.status, max_message_size)
        connection.engine.send(response)
        if connection.is_due(len(response)):
            await connection.flush()


def _attributes(one: Listed, command: List, *, has_children: bool) -> list[str]:
    attributes = []
    if not one.exists:
        attributes.append("\\NonExistent" if command.extended else "\\Noselect")
    if one.subscribed and ("SUBSCRIBED" in command.select or "SUBSCRIBED" in command.returns):
        attributes.append("\\Subscribed")
    attributes.append("\\HasChildren" if has_children else "\\HasNoChildren")
    if one.role:
        attributes.append(f"\\{one.role}")
    return attributes


async def list_subscribed(account: Account, command: Lsub, connection: Connection) -> None:
    r"""Send the responses to LSUB.

    A name that is only above subscribed ones is said, as ``\Noselect``, where ``%`` hides those
    (RFC 3501 6.3.9).

    Raises:
        Rejected: the pattern is too long.
        StoreError: subscriptions cannot be read.
    """
    if not command.pattern:
        connection.engine.send(lsub_response("", ("\\Noselect",)))
        return
    listed = await account.folders()
    subscribed = {one.name for one in listed if one.subscribed}
    asked = command.reference, (command.pattern,), connection
    matching = await _matching(subscribed, *asked)
    hidden = _above(subscribed - matching) - subscribed
    for name in sorted(matching | await _matching(hidden, *asked)):
        response = lsub_response(name, () if name in subscribed else ("\\Noselect",))
        connection.engine.send(response)
        if connection.is_due(len(response)):
            await connection.flush()
