"""An account from a backup, in place of what there is.

Rules of this file: blocking. The account is made beside the old one, whole and synced, and then the
two change places by one rename, under the old one's lock. So a crash leaves the old account or the
new one. What there was is not removed, but kept under another name; mail that comes meanwhile is in
one of the two, or the sender tries again.

    .restore-...   of one account; with the file `index.restoring` in it, it is not complete, and
                   the next try removes it; without it, it is what there was before
    .replaced-...  what there was before

Sessions that have the account open notice, because the lock is another file now (account_lock.py).
An index that was restored says so when it is opened: UIDs go on far beyond those of the backup, and
clients compare their mail with it (index.py). UIDVALIDITYs that were used since are not used again.

A Maildir of another server has no index. If the account has had one, it would count as lost, and
nothing would be imported (first_open.py). So the index is made here, before the account's last
UIDVALIDITY is known to it; a folder whose UIDVALIDITY the account may have had gets another one, if
any messages have been seen here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.account_lock import AccountLock
from fastlisten.mail.store.backup_forms import NotABackupError, Source
from fastlisten.mail.store.folders import discover
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.pending import finish
from fastlisten.mail.store.schema import VERSION
from fastlisten.private_files import open_new, sync_directory, write_all

__all__ = ["HasMailError", "Restored", "restore"]

_MARK = "index.restoring"

_PIECE = 1 << 20

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


class HasMailError(Exception):
    """The account has mail already."""


@dataclass(slots=True)
class Restored:
    """What was restored.

    Attributes:
        messages: how many.
        before: where that is what there was before, empty if nothing.
        foreign: it is another server's: there was no index.
        renumbered: folders of another server that have a new UIDVALIDITY.
    """

    messages: int = 0
    before: str = ""
    foreign: bool = False
    renumbered: int = 0


def restore(root: str, source: Source, *, force: bool = False) -> Restored:
    """Make an account from a backup.

    Args:
        root: the account's directory, which need not exist.
        source: the backup.
        force: replace what is there.

    Raises:
        HasMailError: there is mail, and `force` is false; nothing has changed.
        NotABackupError: the source is none; nothing has changed.
        OSError, sqlite3.Error: it cannot be done.
    """
    above, name = os.path.split(root)
    staging = f"{above}/.restore-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    if not force and _has_mail(root):
        raise HasMailError(f"{root} has mail already")
    os.makedirs(above, 0o700, exist_ok=True)
    with _alone(above):
        if os.path.isdir(staging):
            _clear(staging, above)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{root}/{_MARK}")  # of an earlier restore that was killed at its end
        restored = Restored()
        try:
            _stage(staging, source, restored)
            if not restored.foreign:
                _keep_uidvalidity(root, staging)
            os.sync()
        except BaseException:
            _remove(staging)
            raise
        exchanged = _put_in_place(root, staging, restored, force=force)
        os.unlink(f"{root}/{_MARK}")
        sync_directory(above)
        if exchanged:
            restored.before = _set_aside(staging, above)
        return restored


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Keep others from restoring meanwhile."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _has_mail(root: str) -> bool:
    """Return whether there is a message, or an index that knows of some that were there."""
    if os.path.lexists(f"{root}/index.db"):
        return True
    folders = [root]
    with contextlib.suppress(FileNotFoundError):
        folders += [entry.path for entry in os.scandir(root) if entry.name.startswith(".")]
    for folder in folders:
        for part in ("cur", "new"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if os.listdir(f"{folder}/{part}"):
                    return True
    return False


def _clear(staging: str, above: str) -> None:
    """Deal with what a crash has left."""
    if os.path.lexists(f"{staging}/{_MARK}"):
        _remove(staging)
    else:
        _set_aside(staging, above)


def _remove(staging: str) -> None:
    """Remove what is not complete; the mark goes last."""
    for entry in os.scandir(staging):
        if entry.name == _MARK:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{staging}/{_MARK}")
    os.rmdir(staging)


def _set_aside(staging: str, above: str) -> str:
    aside = f"{above}/.replaced-{unique_name()}"
    os.rename(staging, aside)
    sync_directory(above)
    return aside


# --- the new one ----------------------------------------------------------------------------------


def _stage(staging: str, source: Source, restored: Restored) -> None:
    os.mkdir(staging, 0o700)
    os.close(open_new(f"{staging}/{_MARK}"))
    Maildir(staging).prepare()
    made = {""}
    for name, content, mtime in source.files():
        parts = name.split("/")
        folder = parts[0] if len(parts) > 1 and parts[0].startswith(".") else ""
        if folder not in made:
            Maildir(f"{staging}/{folder}").prepare()
            made.add(folder)
        if parts[-1] == "maildirfolder":
            continue  # which is there already
        fd = open_new(f"{staging}/{name}")
        try:
            while piece := content.read(_PIECE):
                write_all(fd, piece)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
        restored.messages += len(parts) > 1 and parts[-2] in ("cur", "new")
    if made == {""} and not restored.messages and not os.path.lexists(f"{staging}/index.db"):
        raise NotABackupError("there is no mail in it, and no index")
    if os.path.lexists(f"{staging}/index.db"):
        _check_index(f"{staging}/index.db")
    else:
        restored.foreign = not os.path.lexists(f"{staging}/uidvalidity")


def _check_index(path: str) -> None:
    """Check an index, and have it known as a restored copy wherever it is opened.

    Raises:
        NotABackupError: it cannot be used.
    """
    index = sqlite3.connect(path, isolation_level=None)
    try:
        if index.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise NotABackupError("its index is damaged")
        (version,) = index.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise NotABackupError(f"its index is of another version: {version}, not {VERSION}")
        index.execute("UPDATE state SET file = '', dirty_boot = ''")
    except sqlite3.DatabaseError as error:
        raise NotABackupError(f"its index cannot be read: {error}") from error
    finally:
        index.close()


def _keep_uidvalidity(root: str, staging: str) -> None:
    """Note the last UIDVALIDITY that was used, in the backup or since."""
    last = max(_last_uidvalidity(root), _last_uidvalidity(staging))
    if last:
        with open(f"{staging}/uidvalidity", "w", encoding="ascii") as file:
            file.write(f"{last}\n")


def _last_uidvalidity(directory: str) -> int:
    with (
        contextlib.suppress(FileNotFoundError, ValueError),
        open(f"{directory}/uidvalidity", encoding="ascii") as file,
    ):
        return int(file.read(20))
    return 0


def _has_given_uids(root: str) -> bool:
    """Return whether a client can have seen a message of an account: not if it was only opened."""
    try:
        index = sqlite3.connect(f"file:{urllib.parse.quote(root)}/index.db?mode=ro", uri=True)
        with contextlib.closing(index):
            return bool(index.execute("SELECT max(uidnext) > 1 FROM folder").fetchone()[0])
    except sqlite3.Error:
        return True  # nobody knows


def _import(root: str, staging: str) -> int:
    """Import what another server knew; return how many folders have a new UIDVALIDITY.

    Clients may have seen the others here with other messages, so UIDs would not mean the same.
    """
    last = _last_uidvalidity(root) if _has_given_uids(root) else 0
    index = Index(staging, finish)
    try:
        discover(index)
        with index.locked():
            index.note_uidvalidity(last)
            used = index.query("SELECT id FROM folder WHERE uidvalidity <= ?", (last,))
            fresh = [(index.new_uidvalidity(), folder) for (folder,) in used]
            with index.transaction(sync=True) as db:
                db.executemany("UPDATE folder SET uidvalidity = ? WHERE id = ?", fresh)
        return len(fresh)
    finally:
        index.close()


# --- the exchange ---------------------------------------------------------------------------------


def _put_in_place(root: str, staging: str, restored: Restored, *, force: bool) -> bool:
    """Put the new account in its place; return whether the old one is where it was made."""
    if not os.path.isdir(root):
        os.rename(staging, root)
        return False
    lock = AccountLock(f"{root}/index.lock")
    try:
        with lock:
            if not force and _has_mail(root):
                _remove(staging)
                raise HasMailError(f"{root} has mail already")
            if restored.foreign and _last_uidvalidity(root):
                restored.renumbered = _import(root, staging)
            # Clients may have been given a UIDVALIDITY while the backup was read.
            _keep_uidvalidity(root, staging)
            _exchange(root, staging)
            # Whoever waits for changes is told by the times of the lock's file.
            os.utime(f"{staging}/index.lock")
    finally:
        lock.close()
    return True


def _exchange(one: str, other: str) -> None:
    """Have two directories change places."""
    if _renameat2 is not None:
        if not _renameat2(
            _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
        ):
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), one, None, other)
    # A filesystem that cannot do that: for a moment there is no account.
    aside = f"{other}.old"
    os.rename(one, aside)
    os.rename(other, one)
    os.rename(aside, other)
