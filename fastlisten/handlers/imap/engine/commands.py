"""The commands of IMAP clients, and what else the engine reports to its user.

Rules of this file: data only, no behaviour. All of it has been checked for syntax and for the
session's state. Names of mailboxes are text, with INBOX in capitals; flags are as the flags module
says; numbers are in the ranges of the grammar.

A command is to be answered by `ImapEngine.ok`, `no` or `bad`, unless its docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from fastlisten.handlers.imap.engine.fetch_items import FetchItem
from fastlisten.handlers.imap.engine.search_keys import SearchKey
from fastlisten.handlers.imap.engine.sequence_sets import SequenceSet

__all__ = [
    "AppendEnd",
    "AppendMessage",
    "AppendOctets",
    "Authenticate",
    "AuthenticateResponse",
    "Cancelled",
    "Capability",
    "Check",
    "Close",
    "Copy",
    "Create",
    "Delete",
    "Enable",
    "Event",
    "Expunge",
    "Fetch",
    "GetQuota",
    "GetQuotaRoot",
    "Goodbye",
    "Id",
    "Idle",
    "IdleDone",
    "List",
    "Login",
    "Logout",
    "Lsub",
    "Move",
    "Namespace",
    "Noop",
    "Qresync",
    "Refusal",
    "Rename",
    "Search",
    "Select",
    "SetQuota",
    "StartTls",
    "Status",
    "Store",
    "Subscribe",
]

# --- in every state -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capability:
    """CAPABILITY."""


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP."""


@dataclass(frozen=True, slots=True)
class Logout:
    """LOGOUT. `ok` says ``BYE`` too."""


@dataclass(frozen=True, slots=True)
class Id:
    """ID (RFC 2971).

    Attributes:
        fields: what the client says of itself, names in lower case; empty for NIL.
    """

    fields: dict[str, str | None]


# --- before login ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS. After `ok`, write the output and begin the handshake; then `tls_started`."""


@dataclass(frozen=True, slots=True)
class Login:
    """LOGIN. Passwords are octets, because no charset is said."""

    user: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticate:
    """AUTHENTICATE, with a mechanism that is offered. May be answered by `challenge`.

    Attributes:
        mechanism: its name in upper case.
        initial: the initial response (RFC 4959), decoded; None if there is none.
    """

    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthenticateResponse:
    """What the client says to a challenge. To be answered like Authenticate."""

    data: bytes = field(repr=False)


# --- after login ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enable:
    """ENABLE (RFC 5161): names in upper case, also unknown ones. Tell `ImapEngine.enable`."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Qresync:
    """QRESYNC's parameters of SELECT (RFC 7162 3.2.5).

    Attributes:
        uidvalidity: that the client knows.
        modseq: that the client knows.
        known_uids: the client's messages; None for all.
        sample: message numbers and the UIDs that they had; None if not given.
    """

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None = None
    sample: tuple[SequenceSet, SequenceSet] | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT or EXAMINE. The mailbox that was selected no longer is, whatever the answer.

    Attributes:
        mailbox: its name.
        read_only: EXAMINE.
        condstore: MODSEQs are wanted from now on (RFC 7162 3.1.8).
        qresync: what the client knows already.
        closed: a mailbox was selected: say ``OK [CLOSED]`` (RFC 7162 3.2.11).
    """

    mailbox: str
    read_only: bool = False
    condstore: bool = False
    qresync: Qresync | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    r"""CREATE.

    Attributes:
        mailbox: its name, as given: a delimiter at its end is the user's matter.
        roles: special uses (RFC 6154) without the backslash, capitalised as in ``Sent``.
    """

    mailbox: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE or UNSUBSCRIBE."""

    mailbox: str
    subscribed: bool = True


@dataclass(frozen=True, slots=True)
class List:
    """LIST, also in its extended form (RFC 5258, 5819, 6154).

    Attributes:
        reference: the name that patterns are relative to.
        patterns: one or several.
        select: SUBSCRIBED, REMOTE, RECURSIVEMATCH, SPECIAL-USE.
        returns: SUBSCRIBED, CHILDREN, SPECIAL-USE, STATUS.
        status: the items of STATUS.
        extended: some of the extended form was used.
    """

    reference: str
    patterns: tuple[str, ...]
    select: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Lsub:
    """LSUB."""

    reference: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """NAMESPACE (RFC 2342)."""


@dataclass(frozen=True, slots=True)
class Status:
    """STATUS. Items are in upper case, each once."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Idle:
    """IDLE (RFC 2177). To be answered by `accept`, later by an `ok` to IdleDone; or by `no`."""


@dataclass(frozen=True, slots=True)
class IdleDone:
    """DONE. To be answered by `ok`."""


@dataclass(frozen=True, slots=True)
class GetQuota:
    """GETQUOTA (RFC 9208)."""

    root: str


@dataclass(frozen=True, slots=True)
class GetQuotaRoot:
    """GETQUOTAROOT (RFC 9208)."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class SetQuota:
    """SETQUOTA (RFC 9208): names of resources in upper case, and their new limits."""

    root: str
    limits: tuple[tuple[str, int], ...]


# --- APPEND ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """A message of APPEND is about to come (RFC 3501 6.3.11, RFC 3502).

    To be answered by `accept`; or by `no`, which ends the command. After a Refusal, or when `no`
    has been answered, no message of the command may stay.

    Attributes:
        mailbox: its name.
        flags: flags that it shall have.
        date: INTERNALDATE; None for now.
        size: octets.
        index: 0 for the command's first message.
    """

    mailbox: str
    flags: tuple[str, ...]
    date: datetime | None
    size: int
    index: int


@dataclass(frozen=True, slots=True)
class AppendOctets:
    """Octets of the message, at least one. Not to be answered."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppendEnd:
    """APPEND is complete: all its messages have come."""


# --- with a mailbox -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """CHECK."""


@dataclass(frozen=True, slots=True)
class Close:
    """CLOSE, or UNSELECT (RFC 3691), which expunges nothing."""

    expunge: bool = True


@dataclass(frozen=True, slots=True)
class Expunge:
    """EXPUNGE, or UID EXPUNGE (RFC 4315) with its UIDs."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """SEARCH or UID SEARCH.

    Attributes:
        uid: UIDs are to be returned.
        key: what is searched for.
        returns: MIN, MAX, ALL, COUNT, SAVE (RFC 4731, 5182); None for the old form, an untagged
            SEARCH. ``RETURN ()`` is ALL.
        modseq: MODSEQ was among the keys (RFC 7162 3.1.5).
    """

    uid: bool
    key: SearchKey
    returns: frozenset[str] | None = None
    modseq: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH or UID FETCH.

    Attributes:
        uid: `messages` are UIDs.
        messages: which.
        items: what, in the client's order, each once. UID FETCH has UID, and CHANGEDSINCE has
            MODSEQ, also if the client did not write them.
        changed_since: only messages with a larger modification sequence.
        vanished: also say which were expunged since.
    """

    uid: bool
    messages: SequenceSet
    items: tuple[FetchItem, ...]
    changed_since: int | None = None
    vanished: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """STORE or UID STORE.

    Attributes:
        uid: `messages` are UIDs.
        messages: which.
        mode: ``+`` adds, ``-`` removes, ``=`` replaces.
        flags: which.
        silent: the client does not want to be told the new flags.
        unchanged_since: only messages without a larger modification sequence.
    """

    uid: bool
    messages: SequenceSet
    mode: Literal["+", "-", "="]
    flags: tuple[str, ...]
    silent: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY or UID COPY."""

    uid: bool
    messages: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Move:
    """MOVE or UID MOVE (RFC 6851)."""

    uid: bool
    messages: SequenceSet
    mailbox: str


# --- no commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine has answered a command by itself, with NO or BAD. Not to be answered.

    Attributes:
        command: its name in upper case; empty if there is none that is known.
        text: what was said.
        bad: with BAD.
        code: the response code that was said.
        unsaved: it is a SEARCH whose result was to be saved, and ``$`` is empty now (RFC 5182 2.1).
    """

    command: str
    text: str
    unsaved: bool = False
    bad: bool = True
    code: bytes = b""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client has cancelled AUTHENTICATE, or sent no valid response. Not to be answered."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Write the output, then close the connection. Not to be answered."""


#: What `ImapEngine.next_event` returns.
Event = (
    Capability
    | Noop
    | Logout
    | Id
    | StartTls
    | Login
    | Authenticate
    | AuthenticateResponse
    | Enable
    | Select
    | Create
    | Delete
    | Rename
    | Subscribe
    | List
    | Lsub
    | Namespace
    | Status
    | Idle
    | IdleDone
    | GetQuota
    | GetQuotaRoot
    | SetQuota
    | AppendMessage
    | AppendOctets
    | AppendEnd
    | Check
    | Close
    | Expunge
    | Search
    | Fetch
    | Store
    | Copy
    | Move
    | Refusal
    | Cancelled
    | Goodbye
)
