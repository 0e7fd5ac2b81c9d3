"""The index of one account in one process: its connection, its transactions, its counter.

Rules of this file: blocking system calls, to be run in worker threads; open it after a fork. Only
SQLite opens index.db. Every change, every checkpoint and the close are made under the lock; what
only reads need not have it. What file work a transaction implies is in the table `pending`, and
whoever takes the lock first finishes what a crash has left there (pending.py).

A transaction is not synced: a power loss takes the last ones back, and files are found again by
looking. So that no UID and no modification sequence that clients have been told comes back with
another meaning:

- `dirty_boot` holds the boot's id, synced, before anything else is written. It is cleared after a
  complete checkpoint. If another boot's is found, transactions may be missing: UIDNEXT of every
  folder is raised by `UID_STRIDE`, and no modseq below a new one is reported any more (`floor`).
- A transaction that takes a folder's UIDNEXT to `UID_STRIDE` beyond the last one that was synced
  is synced itself.
- An index in another file than it was made in (file_identity.py) is a copy from a backup, which may
  be old: the same, with `RESTORED_STRIDE`.

Measured: the log holds some 11,000 rows that are not synced.

Damage is noticed by whoever reads a damaged page. Whoever has the lock next, or closes the index,
checks all of it, puts it aside if it is damaged indeed, and makes it again from the files and the
snapshot: folders have other ids then, so that what is open ends.

On a full or read-only filesystem, an index that was closed in order is opened for reading: mail
that it knows can be read. Whoever has the lock next tries to open it for writing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastlisten.mail.accounts.quota import NO_QUOTA, Quota
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import index_snapshot
from fastlisten.mail.store.account_lock import AccountLock
from fastlisten.mail.store.bounds import NO_BOUNDS, Bounds
from fastlisten.mail.store.file_identity import identity_of
from fastlisten.mail.store.schema import SCHEMA, STEPS, VERSION
from fastlisten.private_files import open_new, replace, sync_directory

__all__ = [
    "FULL",
    "LARGEST_SLICE",
    "RESTORED_STRIDE",
    "UID_STRIDE",
    "Index",
    "boot_id",
    "cannot_write",
]

logger = logging.getLogger("fastlisten.mail")

#: How many messages are changed before others get the lock: some 10 ms.
LARGEST_SLICE = 500

#: Rows that are fetched at once, and freed: 1 ms.
_FETCHED = 2_000

#: How far UIDNEXT may be beyond the one that is synced.
UID_STRIDE = 1_000

#: How far UIDNEXT may be beyond that of a backup: more messages than an account gets meanwhile.
RESTORED_STRIDE = 1_000_000

#: Seconds that SQLite waits for another process that opens or recovers the index: longer than any
#: checkpoint takes.
_PATIENCE = 60.0

#: Name of the file that holds the last UIDVALIDITY.
_UIDVALIDITY = "uidvalidity"

#: Primary result codes of SQLite: SQLITE_CORRUPT, SQLITE_NOTADB.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

#: Of a full filesystem.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: Result codes of SQLite on a full or read-only filesystem: also where it makes files of its own.
_UNWRITABLE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)

#: UIDs and UIDVALIDITY are below this (RFC 3501 9, nz-number).
_UID_LIMIT = 1 << 32


def boot_id() -> str:
    """Return what is different after every start of the machine (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def cannot_write(error: BaseException) -> bool:
    """Return whether an error says that a filesystem is full or read-only, and no more."""
    if isinstance(error, OSError):
        return error.errno in FULL or error.errno == errno.EROFS
    return getattr(error, "sqlite_errorcode", 0) in _UNWRITABLE


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


class Index:
    """One account's index; threads may share it.

    Attributes:
        maildir: the account's files.
        finish: called with the index under the lock, if there is pending file work.
        quota: how much mail the account may have.
        bounds: how many folders and keywords it may have.
        pauses: until when folders are not compared (usage.py).
        suspect: damage has been noticed, and not yet been looked into.
        read_only: why nothing can be written; None if that is not so.
    """

    def __init__(self, root: str, finish: Callable[[Index], object]) -> None:
        """Open the index, which is made if it is missing, and the Maildir too.

        Args:
            root: the account's directory.
            finish: does pending file work.

        Raises:
            OSError: the directory cannot be used.
            sqlite3.Error: the index cannot be used.
        """
        self.maildir = Maildir(root)
        self.finish = finish
        self.quota: Callable[[], Quota] = lambda: NO_QUOTA
        self.bounds: Callable[[], Bounds] = lambda: NO_BOUNDS
        self.pauses: dict[int, float] = {}
        self._path = f"{root}/index.db"
        self._snapshot = f"{root}/index.snapshot"
        self._boot = boot_id()
        self._uses = threading.Lock()  # of the connection
        self._inode = 0
        self.suspect = False
        self.read_only: OSError | sqlite3.Error | None = None
        self._news = False  # something has been committed under the lock
        self._renewing = False  # a new index is what was asked for
        self._connection: sqlite3.Connection | None = None
        if not os.path.isdir(self.maildir.tmp):  # the last one that `prepare` makes
            self.maildir.prepare()
        self._lock = AccountLock(f"{root}/index.lock")
        try:
            with self._lock:
                self._open()
                if self._news:
                    self._lock.announce()
                if os.path.exists(self._snapshot) and not self.read_only:
                    self._keep_snapshot()
                    if self.suspect:
                        self._reopen()
        except BaseException:
            self._lock.close()
            raise

    # --- opening and closing ------------------------------------------------------------------

    def _open(self) -> None:
        """Open the index, under the lock; one that is damaged is put aside, and made again."""
        try:
            self._open_to_write()
            if self.read_only or not self.suspect:
                return
            found = self._damage()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            found = str(error)
        if found:
            self._drop()
            logger.error("%s is damaged (%s), and is made again", self._path, found)
            os.replace(self._path, f"{self._path}.damaged")
            self._open_file()
        self.suspect = False

    def _damage(self) -> str:
        """Check all of the index; return what is wrong with it, empty if nothing is."""
        (found,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        return "" if found == "ok" else str(found)

    def _reopen(self) -> None:
        """Open another file that has taken its place, or look into damage, under the lock."""
        self._drop()
        self._open()

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open_to_write(self) -> None:
        """Open the file; to read only, if it cannot be written for a while."""
        try:
            self._open_file()
        except (OSError, sqlite3.Error) as error:
            if not cannot_write(error) or not self._open_to_read():
                raise
            if not self.read_only:
                logger.warning("%s cannot be written, and is only read: %s", self._path, error)
            self.read_only = error
        else:
            self.read_only = None

    def _open_to_read(self) -> bool:
        """Open the file as it is; return False if that is not all of the index."""
        log = f"{self._path}-wal"
        if not os.path.isfile(self._path) or (os.path.exists(log) and os.path.getsize(log)):
            return False
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(self._path)}?immutable=1",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
            connection.close()
            return False
        self._connection = connection
        self._inode = os.stat(self._path).st_ino
        return True

    def _open_file(self) -> None:
        """Open the file; make the tables; notice a power loss or a backup."""
        if not os.path.lexists(self._path):
            # Whoever has the old one open must not share the memory and the log of the new one.
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + suffix)
            os.close(open_new(self._path))
        connection = sqlite3.connect(
            self._path,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._connection = connection
            self._inode = os.stat(self._path).st_ino
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._create()
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"{self._path} is of a newer version: {version}")
            else:
                self._distrust()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def _create(self) -> None:
        # Something only an index writes: without it there has never been one.
        first = not os.path.exists(f"{self.maildir.path}/{_UIDVALIDITY}")
        now = _now()
        with self._synced(), index_snapshot.attached(self._db, self._snapshot) as kept:
            try:
                self._db.executescript("BEGIN IMMEDIATE;" + SCHEMA)
                self._db.execute(
                    # Nobody knows what happened before this index.
                    "INSERT INTO state VALUES (1, ?, ?, ?, ?, 0, ?)",
                    (secrets.token_hex(8), now, self._boot, identity_of(self._path), now),
                )
                if kept:
                    index_snapshot.recall(self._db, self._snapshot, lost=not self._renewing)
                elif first:
                    self._db.executemany("INSERT INTO first_open VALUES (?)", [(s,) for s in STEPS])
                self._db.execute(f"PRAGMA user_version = {VERSION}")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.rollback()
                raise

    def _keep_snapshot(self) -> None:
        if not index_snapshot.keep(self._db, self._snapshot):
            self.suspect = True

    def _distrust(self) -> None:
        """Leave out UIDs and modseqs that clients may have been told, if some may be missing."""
        dirty, file = self._db.execute("SELECT dirty_boot, file FROM state").fetchone()
        identity = identity_of(self._path)
        stride = 0
        if dirty not in ("", self._boot):
            stride = UID_STRIDE
        if file != identity:
            stride = RESTORED_STRIDE
        if not stride:
            return
        logger.warning(
            "%s: %s; clients will compare their mail with it",
            self._path,
            "it was restored from a backup" if file != identity else "the machine lost power",
        )
        self._news = True
        with self._synced(), self._begun():
            number = self.numbers(1)
            self._db.execute(
                "UPDATE state SET dirty_boot = ?, file = ?, floor = ?, pruned = ?",
                (self._boot, identity, number, number),
            )
            self._db.execute(
                "UPDATE folder SET uidnext = min(uidnext + ?, ?), highmodseq = ?, seen_mtime = 0",
                (stride, _UID_LIMIT, number),
            )
            self._db.execute("UPDATE folder SET synced = uidnext")

    def close(self) -> None:
        """Write everything into the file and close it. Nothing of it may be called afterwards."""
        if self._connection is None:
            self._lock.close()
            return
        try:
            with self._lock, self._uses:
                try:
                    if not self.read_only:
                        self._checkpoint()
                    if self.suspect:
                        self._reopen()
                finally:
                    self._drop()
        finally:
            self._lock.close()

    def _checkpoint(self) -> None:
        """Take note that everything is on the disk, if it is."""
        try:
            if self._replaced():
                return
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                with self._synced(), self._begun():
                    self._db.execute("UPDATE folder SET synced = uidnext WHERE synced < uidnext")
                    self._db.execute("UPDATE state SET dirty_boot = ''")
            self._keep_snapshot()
        except sqlite3.Error as error:
            self._note(error)
            logger.warning("%s: cannot be checkpointed: %s", self._path, error)

    def _replaced(self) -> bool:
        """Return whether another file has taken the place of the one that is open."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def follow(self) -> None:
        """Open the index that is there now, if another file has taken the place of the open one.

        Whoever takes the lock need not do this.

        Raises:
            OSError, sqlite3.Error: it cannot be opened.
        """
        if self._replaced():
            with self.locked():
                pass

    # --- the lock and transactions ------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the account's lock. What a crash has left undone is done first.

        If something has been committed, whoever watches the lock's file is told at the end.
        """
        with self._lock:
            reopened = self.suspect or self._connection is None or self._replaced()
            if reopened or self.read_only:
                with self._uses:
                    self._reopen()
            self._news = not self.read_only and (
                reopened or bool(self.query("SELECT 1 FROM pending LIMIT 1"))
            )
            try:
                if self._news:
                    self.finish(self)
                yield
            finally:
                if self._news:
                    self._lock.announce()

    def renew(self) -> None:
        """Make the index again, under the lock; only the snapshot is kept of the old one.

        Whoever has the old one open notices as soon as the lock is taken. Once the file is gone, an
        index that is made in its place is a new one: SQLite drops the log of an empty database.

        Raises:
            OSError, sqlite3.Error: it cannot be made; until the snapshot is on the disk, the old
                one stays.
        """
        with self._uses:
            index_snapshot.keep_now(self._db, self._snapshot)
            os.unlink(self._path)
            sync_directory(self.maildir.path)
            self._renewing = True
            try:
                self._reopen()
            finally:
                self._renewing = False
            self._news = True

    def copy_into(self, path: str) -> None:
        """Copy the index into a new file, under the lock.

        Raises:
            OSError: it cannot be written.
            sqlite3.Error: the index is damaged, or cannot be read.
        """
        with self._uses:
            if not index_snapshot.copy_into(self._db, path):
                self.suspect = True
                raise sqlite3.DatabaseError(f"{self._path} is damaged; it is made again when used")

    @contextlib.contextmanager
    def transaction(
        self, *, sync: bool = False, quiet: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """Change the index, under the lock: all of it or nothing.

        Args:
            sync: have it on the disk before it ends.
            quiet: nobody needs to know of it, because clients cannot see it.
        """
        with self._uses:
            if self.read_only:
                raise self.read_only.with_traceback(None)
            try:
                (dirty,) = self._db.execute("SELECT dirty_boot FROM state").fetchone()
            except sqlite3.Error as error:
                self._note(error)
                raise
            if not dirty:
                with self._synced(), self._begun():
                    self._db.execute("UPDATE state SET dirty_boot = ?", (self._boot,))
            before = self._db.total_changes
            with self._synced() if sync else contextlib.nullcontext(), self._begun():
                yield self._db
            if not quiet and self._db.total_changes != before:
                self._news = True

    def _note(self, error: sqlite3.Error) -> None:
        """Note that the index may be damaged, if that is what an error says."""
        if _is_damage(error):
            self.suspect = True

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, sqlite3.Error):
                self._note(error)
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _synced(self) -> Iterator[None]:
        """Sync the transaction within the block."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError(f"{self._path} is closed")
        return self._connection

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a question, with the lock or without."""
        with self._uses:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                self._note(error)
                raise

    def pieces(self, sql: str, values: Sequence[Any] = ()) -> Iterator[list[Any]]:
        """Yield all rows of a question, some at a time; ask nothing else meanwhile."""
        with self._uses:
            try:
                rows = self._db.execute(sql, values)
                while piece := rows.fetchmany(_FETCHED):
                    yield piece
            except sqlite3.Error as error:
                self._note(error)
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Ask several questions about the same moment, with the lock or without; keep it short."""
        with self._uses:
            self._db.execute("BEGIN")
            try:
                yield self._db
            except sqlite3.Error as error:
                self._note(error)
                raise
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # --- numbers ------------------------------------------------------------------------------

    def numbers(self, count: int) -> int:
        """Take numbers from the counter, in a transaction; return the first of them."""
        (last,) = self._db.execute("SELECT counter FROM state").fetchone()
        first: int = max(last + 1, _now())
        self._db.execute("UPDATE state SET counter = ?", (first + count - 1,))
        return first

    def exhausts_sync(self, folder: int, count: int) -> bool:
        """Return whether a transaction that adds messages to a folder has to be synced."""
        rows = self.query("SELECT uidnext - synced FROM folder WHERE id = ?", (folder,))
        return bool(rows) and rows[0][0] + count >= UID_STRIDE

    def take_uids(self, folder: int, count: int, *, synced: bool) -> int:
        """Take UIDs of a folder, in a transaction; return the first of them.

        Args:
            folder: its id.
            count: how many.
            synced: whether the transaction is.

        Raises:
            sqlite3.DataError: it has used up all UIDs.
        """
        (first,) = self._db.execute("SELECT uidnext FROM folder WHERE id = ?", (folder,)).fetchone()
        if first + count > _UID_LIMIT:
            raise sqlite3.DataError(f"{self._path}: folder {folder} has no more UIDs")
        self._db.execute(
            "UPDATE folder SET uidnext = ?1, synced = iif(?2, ?1, synced) WHERE id = ?3",
            (first + count, synced, folder),
        )
        return int(first)

    def new_uidvalidity(self, count: int = 1, above: int = 0) -> int:
        """Return a UIDVALIDITY that the account has never had, under the lock; it is used up.

        Args:
            count: how many are used up, from the one that is returned on.
            above: they are larger than this.

        The last one is in a file of its own too, so that a new index does not use it again.
        """
        (known,) = self.query("SELECT max(uidvalidity) FROM folder")[0]
        number = max(self._last_uidvalidity(), known or 0, above, int(time.time()) - 1) + 1
        self._keep_uidvalidity(number + count - 1)
        return number

    def note_uidvalidity(self, number: int) -> None:
        """Take note of a UIDVALIDITY that clients know from another server, under the lock."""
        if number > self._last_uidvalidity():
            self._keep_uidvalidity(number)

    def _last_uidvalidity(self) -> int:
        try:
            with open(f"{self.maildir.path}/{_UIDVALIDITY}", encoding="ascii") as file:
                return int(file.read(20))
        except (FileNotFoundError, ValueError):
            return 0

    def _keep_uidvalidity(self, number: int) -> None:
        replace(f"{self.maildir.path}/{_UIDVALIDITY}", b"%d\n" % number)


def _now() -> int:
    """Return the clock in microseconds."""
    return time.time_ns() // 1000
