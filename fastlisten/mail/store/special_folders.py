"""Folders with a special use (RFC 6154): made in a new account, found in one of another server.

Rules of this file: blocking, under the lock. It happens once, at the first open by somebody who
knows the names (first_open.py). An account without folders gets all of them, subscribed. Otherwise
none is made: those that are there get their use by the names that clients give them. Which of the
two it is, is noted before the first is made, because after a crash there are some.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.folders import insert, name_of
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.schema import Step

__all__ = ["ROLES", "prepare"]

logger = logging.getLogger("fastlisten.mail")

#: The uses, with names that clients and other servers give such folders, in English; the first
#: that is there gets the use. Outlook: "... Items", "Junk Email"; Apple: "... Messages".
ROLES: Mapping[str, tuple[str, ...]] = {
    "Drafts": ("Drafts", "Draft"),
    "Sent": ("Sent", "Sent Items", "Sent Messages", "Sent Mail", "Sent Email"),
    "Junk": ("Junk", "Spam", "Junk E-mail", "Junk Email", "Junk Mail", "Bulk Mail"),
    "Trash": ("Trash", "Deleted Items", "Deleted Messages", "Deleted Mail", "Deleted"),
    "Archive": ("Archive", "Archives"),
}


def prepare(index: Index, names: Mapping[str, str]) -> None:
    """Make folders with special uses, or give the uses to folders that are there.

    Args:
        index: the account's; its folders have been discovered.
        names: of the folders, by use; a use without a name gets no new folder.

    Raises:
        sqlite3.Error: the index cannot be written.
    """
    if not index.query("SELECT 1 FROM first_open WHERE step IN (?, ?)", (Step.ROLES, Step.MAKE)):
        return
    with index.locked():
        if index.query("SELECT 1 FROM first_open WHERE step = ?", (Step.ROLES,)):
            new = not index.query("SELECT 1 FROM folder WHERE name != ''")
            found = list(_found(index, names))
            with index.transaction() as db:
                db.execute("DELETE FROM first_open WHERE step = ?", (Step.ROLES,))
                if new:
                    db.execute("INSERT INTO first_open VALUES (?)", (Step.MAKE,))
                else:
                    number = index.numbers(1)
                    db.executemany(
                        "UPDATE folder SET role = ?, modseq = ? WHERE id = ?",
                        [(role, number, folder) for role, folder in found],
                    )
        if not index.query("SELECT 1 FROM first_open WHERE step = ?", (Step.MAKE,)):
            return
        for role, name in names.items():
            try:
                _make(index, role, directory_of(name))
            except (OSError, FolderNameError) as error:
                # The next open tries again.
                logger.warning("%s: cannot make %s: %s", index.maildir.path, name, error)
                return
        with index.transaction() as db:
            db.execute("DELETE FROM first_open WHERE step = ?", (Step.MAKE,))


def _found(index: Index, names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield uses that no folder has, each with the folder that should."""
    rows = index.query("SELECT name, id, role FROM folder WHERE name != ''")
    taken = {role for _, _, role in rows}
    # Where Courier's names are kept, everything is below INBOX; such folders come second.
    rows.sort(key=lambda row: not row[0].startswith(".INBOX."))
    known = {
        name_of(directory).casefold().removeprefix("inbox/"): folder
        for directory, folder, role in rows
        if role is None
    }
    for role, usual in ROLES.items():
        if role in taken:
            continue
        for name in (names.get(role, ""), *usual):
            folder = known.pop(name.casefold(), None)
            if folder is not None:
                yield role, folder
                break


def _make(index: Index, role: str, directory: str) -> None:
    rows = index.query("SELECT id, role FROM folder WHERE name = ?", (directory,))
    if not rows:
        Maildir(f"{index.maildir.path}/{directory}").prepare()
        insert(index, directory, role, subscribed=True)
    elif rows[0][1] is None:
        # A crash came before its row, and it has been found since.
        with index.transaction() as db:
            db.execute(
                "UPDATE folder SET role = ?, modseq = ? WHERE id = ?",
                (role, index.numbers(1), rows[0][0]),
            )
            db.execute("INSERT OR IGNORE INTO subscription VALUES (?)", (name_of(directory),))
