"""Writes response codes, without their brackets (RFC 3501 7.1, RFC 5530 and those of extensions).

Rules of this file: constants for codes without arguments, functions for the others. Arguments that
come from users are not in any of them, but flags and ids, which are checked by whoever stores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastlisten.handlers.imap.engine.sequence_sets import write_set
from fastlisten.handlers.imap.engine.strings import write_flags

# RFC 3501 7.1
READ_ONLY = b"READ-ONLY"
READ_WRITE = b"READ-WRITE"
TRYCREATE = b"TRYCREATE"
ALERT = b"ALERT"
PARSE = b"PARSE"
BADCHARSET = b"BADCHARSET (US-ASCII UTF-8)"

# RFC 5530
ALREADYEXISTS = b"ALREADYEXISTS"
AUTHENTICATIONFAILED = b"AUTHENTICATIONFAILED"
AUTHORIZATIONFAILED = b"AUTHORIZATIONFAILED"
CANNOT = b"CANNOT"
CLIENTBUG = b"CLIENTBUG"
CONTACTADMIN = b"CONTACTADMIN"
CORRUPTION = b"CORRUPTION"
EXPIRED = b"EXPIRED"
EXPUNGEISSUED = b"EXPUNGEISSUED"
INUSE = b"INUSE"
LIMIT = b"LIMIT"
NONEXISTENT = b"NONEXISTENT"
NOPERM = b"NOPERM"
OVERQUOTA = b"OVERQUOTA"
PRIVACYREQUIRED = b"PRIVACYREQUIRED"
SERVERBUG = b"SERVERBUG"
UNAVAILABLE = b"UNAVAILABLE"

CLOSED = b"CLOSED"  # RFC 7162 3.2.11
NOMODSEQ = b"NOMODSEQ"  # RFC 7162 3.1.2.2
NOTSAVED = b"NOTSAVED"  # RFC 5182 2.1
TOOBIG = b"TOOBIG"  # RFC 7889 4
UIDNOTSTICKY = b"UIDNOTSTICKY"  # RFC 4315 3
UNKNOWN_CTE = b"UNKNOWN-CTE"  # RFC 3516 4.3
USEATTR = b"USEATTR"  # RFC 6154 6


def capability(names: Iterable[str]) -> bytes:
    """CAPABILITY, in the greeting and after login."""
    return b"CAPABILITY " + " ".join(names).encode("ascii")


def permanent_flags(flags: Iterable[str], new: bool) -> bytes:
    r"""PERMANENTFLAGS; `new` adds ``\*``: new keywords can be made."""
    written = write_flags(flags)
    if new:
        written = b"%b \\*" % written if written else b"\\*"
    return b"PERMANENTFLAGS (%b)" % written


def uid_next(uid: int) -> bytes:
    """UIDNEXT."""
    return b"UIDNEXT %d" % uid


def uid_validity(uidvalidity: int) -> bytes:
    """UIDVALIDITY."""
    return b"UIDVALIDITY %d" % uidvalidity


def unseen(number: int) -> bytes:
    """UNSEEN: the message number of the first message that is not seen."""
    return b"UNSEEN %d" % number


def highest_modseq(modseq: int) -> bytes:
    """HIGHESTMODSEQ (RFC 7162 3.1.2.1)."""
    return b"HIGHESTMODSEQ %d" % modseq


def modified(numbers: Sequence[int]) -> bytes:
    """MODIFIED: messages that STORE has left, as numbers or UIDs (RFC 7162 3.1.3)."""
    return b"MODIFIED " + write_set(numbers)


def append_uid(uidvalidity: int, uids: Sequence[int]) -> bytes:
    """APPENDUID (RFC 4315 3, RFC 3502)."""
    return b"APPENDUID %d %b" % (uidvalidity, write_set(uids))


def copy_uid(uidvalidity: int, sources: Sequence[int], targets: Sequence[int]) -> bytes:
    """COPYUID (RFC 4315 3): `sources[n]` has become `targets[n]`."""
    return b"COPYUID %d %b %b" % (uidvalidity, write_set(sources), write_set(targets))


def mailbox_id(identifier: str) -> bytes:
    """MAILBOXID (RFC 8474 4.1)."""
    return b"MAILBOXID (%b)" % identifier.encode("ascii")
