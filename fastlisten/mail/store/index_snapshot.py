"""What the index alone knows, kept in a second file for the day on which the index is lost.

Rules of this file: blocking, under the lock. The snapshot is a copy of the whole index by SQLite's
backup API, made when the index is opened or closed and the last one is a day old. From files alone
a new index has new UIDs, a new UIDVALIDITY, and everything that file names say; keywords,
subscriptions and roles come from the snapshot, for files and directories of the same names.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator

from fastlisten.private_files import open_new, sync_directory

__all__ = ["KEPT_FOR", "attached", "copy_into", "keep", "keep_now", "recall"]

logger = logging.getLogger("fastlisten.mail")

#: Seconds after which a snapshot is made again.
KEPT_FOR = 86400

#: Copied from the snapshot `old` into the tables of a new index.
_RECALL = (
    "INSERT OR IGNORE INTO subscription SELECT name FROM old.subscription",
    "INSERT OR IGNORE INTO former SELECT name, role FROM old.folder WHERE role IS NOT NULL",
    "INSERT OR IGNORE INTO former SELECT name, role FROM old.former",
    "INSERT OR IGNORE INTO arrival SELECT name, keywords FROM old.message WHERE keywords != ''",
    "INSERT OR IGNORE INTO arrival SELECT name, keywords FROM old.arrival",
)


def keep(connection: sqlite3.Connection, path: str) -> bool:
    """Make the snapshot, unless there is a recent one.

    Args:
        connection: the index's.
        path: the snapshot's.

    Returns:
        Whether the index is whole, as far as is known. If not, the last snapshot is kept.
    """
    with contextlib.suppress(FileNotFoundError):
        if 0 <= time.time() - os.stat(path).st_mtime < KEPT_FOR:
            return True
    part = f"{path}.new"
    try:
        whole = copy_into(connection, part)
        if whole:
            os.rename(part, path)
            return True
        logger.warning("%s is kept: the index is damaged", path)
    except (OSError, sqlite3.Error) as error:
        logger.warning("%s cannot be written: %s", path, error)
        whole = getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT
    with contextlib.suppress(OSError):
        os.unlink(part)
    return whole


def keep_now(connection: sqlite3.Connection, path: str) -> None:
    """Make the snapshot, and have it on the disk: the index will be removed.

    If the index is damaged, the last snapshot stays.

    Args:
        connection: the index's.
        path: the snapshot's.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    part = f"{path}.new"
    if copy_into(connection, part):
        os.rename(part, path)
        sync_directory(os.path.dirname(path))
    else:
        os.unlink(part)


def copy_into(connection: sqlite3.Connection, path: str) -> bool:
    """Copy an index into a new file, which takes the place of an older one.

    Returns:
        Whether the copy is whole; an index that is damaged is copied as it is.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(open_new(path))
    copy = sqlite3.connect(path, isolation_level=None)
    try:
        connection.backup(copy)  # page by page, whatever they hold
        whole = bool(copy.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()
    return whole


@contextlib.contextmanager
def attached(connection: sqlite3.Connection, path: str) -> Iterator[bool]:
    """Have a snapshot at hand for `recall`; False if there is none that can be used."""
    there = os.path.exists(path)
    if there:
        try:
            connection.execute("ATTACH ? AS old", (path,))
            (found,) = connection.execute("PRAGMA old.quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            connection.execute("SELECT count(*) FROM old.message").fetchone()
        except sqlite3.Error as error:
            logger.warning("%s cannot be read: %s", path, error)
            with contextlib.suppress(sqlite3.Error):  # it may not have been attached
                connection.execute("DETACH old")
            there = False
    try:
        yield there
    finally:
        if there:
            connection.execute("DETACH old")


def recall(connection: sqlite3.Connection, path: str, *, lost: bool) -> None:
    """Take over what the attached snapshot knows, in the transaction that makes the tables.

    Args:
        connection: the index's.
        path: the snapshot's.
        lost: nobody has asked for a new index, so the log has to say it.
    """
    for statement in _RECALL:
        connection.execute(statement)
    if not lost:
        return
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.stat(path).st_mtime))
    logger.warning(
        "%s: the index was lost; keywords, subscriptions and roles are those of %s",
        os.path.dirname(path),
        when,
    )
