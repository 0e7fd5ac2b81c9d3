"""The first open of an account whose mail another server has kept: what is imported, and when.

Rules of this file: blocking, under the lock. Whether an account has had an index before is decided
with the first one, and stands there in `first_open` until it has been acted upon: `Step.IMPORT`
until its folders are known, so that a crash in between loses nothing. An index that was lost, and
is made again, imports nothing: those files are old by then.

Of each folder UIDVALIDITY and UIDNEXT are taken at once. Its messages get their UIDs and keywords
when they are absorbed for the first time; `former_uids` says that this has not been done yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastlisten.mail.store.files import Found
from fastlisten.mail.store.former_files import (
    DamagedFileError,
    keywords_of,
    subscriptions_of,
    uid_list_of,
    uids_of,
)
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.letters import letters_of
from fastlisten.mail.store.schema import Step

__all__ = ["FormerFolder", "Messages", "end_import", "former_folder", "importing", "messages_of"]

logger = logging.getLogger("fastlisten.mail")

_T = TypeVar("_T")


def importing(index: Index) -> bool:
    """Return whether folders that are found now may be another server's."""
    return bool(index.query("SELECT 1 FROM first_open WHERE step = ?", (Step.IMPORT,)))


def _usable(read: Callable[[str], _T], directory: str, level: int = logging.WARNING) -> _T | None:
    """Read a file of another server; say so if it cannot be used."""
    try:
        return read(directory)
    except DamagedFileError as error:
        logger.log(level, "%s; it is not imported", error)
    except OSError as error:
        logger.log(level, "cannot read %s: %s; it is not imported", error.filename, error.strerror)
    return None


@dataclass(frozen=True, slots=True)
class FormerFolder:
    """What another server knew about a folder.

    Attributes:
        uidvalidity: 0 if its UIDs are not known.
        uidnext: larger than every UID it has given; 1 if those are not known.
        wanted: messages have UIDs or keywords to be imported.
    """

    uidvalidity: int
    uidnext: int
    wanted: bool


def former_folder(directory: str) -> FormerFolder:
    """Look for files of another server in a folder's directory."""
    uids = _usable(uid_list_of, directory)
    words = _usable(keywords_of, directory)
    if uids is None:
        return FormerFolder(0, 1, wanted=bool(words))
    return FormerFolder(uids.uidvalidity, uids.uidnext, wanted=uids.uidnext > 1)


def end_import(index: Index) -> None:
    """Take over subscriptions, and take note that all folders are known."""
    names = _usable(subscriptions_of, index.maildir.path) or []
    ((last,), (known,)) = (
        index.query("SELECT max(uidvalidity) FROM folder")[0],
        index.query("SELECT count(*) FROM former_uids")[0],
    )
    index.note_uidvalidity(last)
    # Synced: no UID may be given before it is certain from where they count.
    with index.transaction(sync=True) as db:
        db.executemany("INSERT OR IGNORE INTO subscription VALUES (?)", [(name,) for name in names])
        db.execute("DELETE FROM first_open WHERE step = ?", (Step.IMPORT,))
    if names or known:
        logger.info(
            "%s: UIDs and keywords of %d folders, and %d subscriptions, are imported",
            index.maildir.path,
            known,
            len(names),
        )


@dataclass(slots=True)
class Messages:
    """What another server knew about messages of a folder.

    Attributes:
        uids: by the names of their files.
        keywords: by the letters that stand for them.
    """

    uids: dict[str, int] = field(default_factory=dict)
    keywords: dict[str, str] = field(default_factory=dict)

    def keywords_of(self, found: Found) -> str:
        """Return a message's keywords, with blanks in between."""
        if not self.keywords:
            return ""
        letters = letters_of(found.bits)
        return " ".join(word for letter in letters if (word := self.keywords.get(letter)))


def messages_of(directory: str, uidnext: int, files: Sequence[Found]) -> Messages:
    """Return what another server knew about some messages; it needs no lock.

    Args:
        directory: the folder's.
        uidnext: that of the folder when it was first found: it has given no UID below itself.
        files: the messages.
    """
    # What is wrong with the files has been said when the folder was found.
    messages = Messages(keywords=_usable(keywords_of, directory, logging.DEBUG) or {})
    if uidnext > 1:
        names = {found.name for found in files}
        uids = _usable(lambda _: uids_of(directory, names), directory, logging.DEBUG) or {}
        messages.uids = {name: uid for name, uid in uids.items() if uid < uidnext}
    return messages
