"""What a protocol needs from a store of mail, whatever keeps it.

    Account ── open ────> Folder ── message ──> Octets
       └────── append ──> Append

Rules of this file: shapes, no behaviour. IMAP and JMAP know nothing else of where mail lies.

*Where it may be called.* Everything is called on one loop. What is no coroutine answers from memory
and never waits. Coroutines may wait for a disk, a lock or another process; several may run at once,
and the store puts their changes in order. A change that has been returned from is committed:
whoever asks afterwards, in any worker, sees it, and no crash of a process undoes it.

*Names* of folders are Unicode with ``/`` between levels. ``INBOX`` always exists and is written in
capitals. *UIDs* are 1 to 2^32 - 1; they grow with arrival and are never used again as long as the
UIDVALIDITY stays. *Modification sequences* (RFC 7162) are below 2^63; each change in the account
has a larger one than all changes before it. UIDs that a method is given, and that do not exist,
are ignored. They are given and returned in ascending order.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

__all__ = [
    "GONE",
    "HAS_KEYWORDS",
    "NO_FLAGS",
    "Account",
    "Append",
    "Appended",
    "Changes",
    "Columns",
    "Copied",
    "FactColumns",
    "Facts",
    "Flag",
    "Folder",
    "FolderExistsError",
    "FolderNotFoundError",
    "FolderRefusedError",
    "LimitReachedError",
    "Listed",
    "MessageGoneError",
    "MessageState",
    "Octets",
    "QuotaStatus",
    "Status",
    "StoreError",
    "StoreFullError",
    "StoreMode",
    "StoreUnavailableError",
    "Stored",
    "Usage",
]


class StoreError(Exception):
    """Something that a store refuses or cannot do; the text may be shown to the client."""


class FolderNotFoundError(StoreError):
    """There is no such folder (NONEXISTENT; TRYCREATE where it is the target)."""


class FolderExistsError(StoreError):
    """There is such a folder already (ALREADYEXISTS)."""


class FolderRefusedError(StoreError):
    """No folder can be made, renamed or deleted like this, now or ever (CANNOT)."""


class MessageGoneError(StoreError):
    """The message has been expunged (EXPUNGEISSUED)."""


class LimitReachedError(StoreError):
    """There may be no more folders or keywords, or no more levels of a name (LIMIT)."""


class StoreFullError(StoreError):
    """There is no space, or the quota is used up (OVERQUOTA)."""


class StoreUnavailableError(StoreError):
    """It does not work now, and may later (UNAVAILABLE)."""


class Flag(enum.IntFlag):
    r"""The system flags. ``\Recent`` is none: it is `Folder.recent`."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


NO_FLAGS = Flag(0)

#: In `Columns.flags`: the message has keywords too; it is there no more.
HAS_KEYWORDS, GONE = 0x20, 0x40


class StoreMode(enum.Enum):
    """What STORE does with flags."""

    ADD = "+"
    REMOVE = "-"
    SET = "="


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder in a list.

    Attributes:
        name: its name.
        exists: False for a name that is only subscribed, or only above folders that exist.
        subscribed: its name is subscribed.
        role: its special use (RFC 6154) without the backslash, as in ``Sent``; empty if none.
    """

    name: str
    exists: bool = True
    subscribed: bool = False
    role: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What STATUS answers. `size` is the sum of all messages as they are served, in octets."""

    messages: int
    recent: int
    unseen: int
    deleted: int
    size: int
    uidnext: int
    uidvalidity: int
    highestmodseq: int
    mailbox_id: str


class Usage(NamedTuple):
    """How much mail there is: octets as they are served, and messages."""

    bytes: int
    messages: int


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """How much mail an account has, and how much it may have; None: no limit."""

    used: Usage
    most_bytes: int | None = None
    most_messages: int | None = None


@dataclass(frozen=True, slots=True)
class MessageState:
    """What changes about a message. Keywords are sorted, and spelt as they were first set."""

    uid: int
    flags: Flag
    keywords: tuple[str, ...]
    modseq: int


@dataclass(frozen=True, slots=True)
class Columns:
    """What many messages have: the same as `MessageState`, without an object for each.

    Attributes:
        uids: their UIDs, of type I.
        flags: the value of `Flag` of each, with `HAS_KEYWORDS` if it has keywords, which
            `Folder.state` returns; `GONE`, and nothing else, if it has been expunged.
        modseqs: their modification sequences, of type Q.
    """

    uids: array[int]
    flags: bytes
    modseqs: array[int]


@dataclass(frozen=True, slots=True)
class Facts:
    """What never changes about a message.

    Attributes:
        uid: its UID.
        size: octets as they are served, with CRLFs (RFC822.SIZE).
        date: INTERNALDATE, in seconds since the epoch.
        email_id: EMAILID (RFC 8474): the same in all folders that it has been copied or moved to.
        structure: what `Folder.keep_structures` was given; None if nothing is kept.
    """

    uid: int
    size: int
    date: int
    email_id: str
    structure: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FactColumns:
    """Some of the facts of many messages, column by column; nobody changes the arrays.

    Attributes:
        uids: UIDs, ascending.
        sizes: as `Facts.size`, in the same order.
        dates: as `Facts.date`.
    """

    uids: array[int]
    sizes: array[int]
    dates: array[int]


@dataclass(frozen=True, slots=True)
class Changes:
    """What has happened in a folder since a modification sequence.

    Attributes:
        cursor: the modification sequence that this leads to: pass it the next time.
        uidnext: larger than every UID so far.
        arrived: messages that came since and are still there.
        changed: older ones whose flags or keywords changed.
        gone: UIDs of messages that are not there any more, ascending; also of those that came
            since, but from `Folder.sync` only of those that the session has seen.
        complete: False if it is too long ago to know what is gone: `gone` is empty then, and every
            UID that is not in `Folder.uids()` does not exist.
    """

    cursor: int
    uidnext: int
    arrived: Sequence[MessageState]
    changed: Sequence[MessageState]
    gone: Sequence[int]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of STORE: what has changed, and what UNCHANGEDSINCE has protected."""

    changed: Sequence[MessageState]
    modified: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Appended:
    """APPENDUID: one UID for each message, in their order."""

    uidvalidity: int
    uids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Copied:
    """COPYUID: `sources[n]` has become `targets[n]`; empty if no message was there any more."""

    uidvalidity: int
    sources: Sequence[int]
    targets: Sequence[int]


class Account(Protocol):
    """The mail of one account."""

    async def folders(self) -> Sequence[Listed]:
        """Return all folders and subscribed names, sorted by name."""

    async def create(self, name: str, role: str = "") -> None:
        """Make a folder and subscribe to it.

        Raises:
            FolderExistsError, FolderRefusedError: no such folder can be made.
        """

    async def delete(self, name: str) -> None:
        """Delete a folder with its messages; folders below it stay."""

    async def rename(self, old: str, new: str) -> None:
        """Rename a folder and those below it; INBOX stays, and its messages move (RFC 3501)."""

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """Add a name to the subscribed ones, or take it away; the folder need not exist."""

    async def status(self, name: str) -> Status:
        """Look at a folder without opening it."""

    async def deleted_size(self, name: str) -> int:
        r"""Return how many octets the messages of a folder have that are ``\Deleted``."""

    async def quota(self) -> QuotaStatus:
        """Return how much mail there is in all folders together, and how much there may be."""

    async def open(self, name: str, *, read_only: bool = False) -> Folder:
        """Open a folder. Unless it is read-only, what is recent has been taken by this session."""

    async def append(self, name: str) -> Append:
        """Begin to append messages to a folder."""


class Append(Protocol):
    """Messages on their way into a folder: all of them come in, or none.

    begin, add, add, begin, add, commit; or abort, wherever it is.
    """

    async def begin(
        self, flags: Flag = NO_FLAGS, keywords: Sequence[str] = (), date: int | None = None
    ) -> None:
        """Begin a message, after the one before it has got all its octets.

        Args:
            flags: system flags that it will have.
            keywords: keywords that it will have.
            date: INTERNALDATE in seconds since the epoch; now if None.
        """

    async def add(self, data: bytes) -> None:
        """Append octets to the message."""

    async def commit(self) -> Appended:
        """Make all of them durable and visible."""

    async def abort(self) -> None:
        """Drop all of them; after `commit`, do nothing."""


class Octets(Protocol):
    """The octets of a message, as they are served: lines end with CRLF, NUL may occur."""

    @property
    def size(self) -> int:
        """How many there are."""

    async def read(self, offset: int, size: int) -> bytes:
        """Return octets; fewer than asked for only at the end. In order is fastest."""

    def close(self) -> None:
        """Give back what is held for it."""


class Folder(Protocol):
    """An open folder, as one session sees it: it changes with `sync`, and by nothing else.

    So sequence numbers are positions in `uids()` plus one, and hold from one `sync` to the next,
    whatever other sessions do meanwhile.
    """

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def read_only(self) -> bool:
        """Whether it was opened by EXAMINE."""

    @property
    def uidvalidity(self) -> int:
        """UIDVALIDITY: the same as long as UIDs mean the same messages."""

    @property
    def uidnext(self) -> int:
        """Larger than every UID so far."""

    @property
    def highestmodseq(self) -> int:
        """The modification sequence of the last change."""

    @property
    def recent(self) -> Sequence[range]:
        r"""The UIDs that are ``\Recent`` for this session, ascending; they need not exist.

        A message is recent for one session, which has not been opened read-only (RFC 3501 2.3.2).
        """

    @property
    def mailbox_id(self) -> str:
        """MAILBOXID (RFC 8474); survives RENAME."""

    def uids(self) -> Sequence[int]:
        """Return all UIDs; a view that may change with the next `sync`."""

    def state(self, uid: int) -> MessageState:
        """Return what a message had at the last `sync` of any session.

        Raises:
            MessageGoneError: there is no such message.
        """

    def columns(self, places: range) -> Columns:
        """Return what messages had at the last `sync` of any session, for many at once.

        Args:
            places: where they are in `uids()`; its step is 1.
        """

    def keywords(self) -> Sequence[str]:
        """Return all keywords in the folder, sorted."""

    def first_unseen(self) -> int:
        r"""Return the number of the first message that is not ``\Seen``; 0 if there is none."""

    def is_current(self) -> bool:
        """Return whether `sync` would return nothing; False if that takes longer to find out."""

    async def sync(self, *, expunge: bool = True) -> Changes:
        """Take over what has happened since, here and elsewhere, and return it.

        Args:
            expunge: whether messages may leave `uids()`. If not, they stay there until a `sync`
                that may (RFC 3501 7.4.1), though they can no longer be read.

        Raises:
            FolderNotFoundError: it has been deleted.
        """

    async def changes(self, since: int) -> Changes:
        """Return what happened after a modification sequence, up to now (QRESYNC).

        A `sync` that follows returns some of it again.
        """

    async def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags and keywords; what does not change keeps its modification sequence.

        The next `sync` returns the changes too, like those of others.

        Args:
            uids: the messages.
            mode: whether to add, to remove or to replace.
            flags: system flags.
            keywords: keywords; case does not matter.
            unchanged_since: leave out messages that have a larger modification sequence.
        """

    async def expunge(self, uids: Sequence[int] | None = None) -> Sequence[int]:
        r"""Remove messages that are ``\Deleted``, all or those of `uids`; return their UIDs."""

    async def copy(self, uids: Sequence[int], target: str) -> Copied:
        """Copy messages with their flags, keywords and dates into a folder: all or none."""

    async def move(self, uids: Sequence[int], target: str) -> Copied:
        """Move messages into another folder, each at once."""

    async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
        """Return what never changes about messages; those that are gone are left out."""

    async def fact_columns(self) -> FactColumns | None:
        """Return facts of the messages, for a search; None if that costs as much as `facts`.

        Messages may be left out, and others be there that are gone.
        """

    async def keep_structures(self, structures: Mapping[int, bytes]) -> None:
        """Keep structures of messages (mail/mime), by UID; a store may decline silently."""

    async def message(self, uid: int) -> Octets:
        """Return the octets of a message; close them.

        Raises:
            MessageGoneError: there is no such message.
        """

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Call back on the loop when `sync` may have something to return; None: no more."""

    def close(self) -> None:
        """Give back what is held for it, and call back no more."""
