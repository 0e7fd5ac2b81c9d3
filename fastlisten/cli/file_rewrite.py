"""Rewriting a file that people edit too: nobody's changes are lost, nobody is locked out.

Rules of this file: blocking system calls; it knows nothing about the file's content. The new file
replaces the old one atomically and durably, with its owner, group, mode, access control list
and other extended attributes, so that whoever could read it still can. Others may write the same
file at the same moment, in place (`cp`, many editors) or by a rename of their own:

    another `account` command is running        wait for it, at most PATIENCE_WITH_OURS
    another program has it open for writing     wait for it, at most PATIENCE
    another program opens it for writing        it waits until we have noticed and given way
    it is another file when ours replaces it    exchange the two again

Then the new content is edited afresh. The second and the third need a read lease (file_leases.py);
without one (not the owner, a network filesystem) we wait until the file has been at rest, and
notice only what has been written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastlisten.files import check_regular
from fastlisten.mail.accounts import file_leases
from fastlisten.mail.accounts.accounts_file import QUIET
from fastlisten.private_files import open_new, sync_directory, write_all

__all__ = ["PATIENCE", "PATIENCE_WITH_OURS", "rewrite"]

#: Seconds that others get to finish what they write.
PATIENCE = 10.0

#: Seconds that commands of our own get: each may have to wait for others, and a script may have
#: started a hundred of them, which hash passwords one after the other.
PATIENCE_WITH_OURS = 60.0

#: Seconds between two looks at whether they have.
_INTERVAL = 0.02

#: Attributes that tell what a file's content was, and would be wrong of another.
_OF_CONTENT = frozenset({"security.ima", "security.evm"})

_ACCESS_LIST = "system.posix_acl_access"

#: renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class _MeanwhileError(Exception):
    """Somebody else writes the file."""


def rewrite(path: Path, read: Callable[[Path], bytes], edit: Callable[[bytes], bytes]) -> None:
    """Replace a file by what `edit` makes of its content, and make it if there is none.

    A new file has mode 0600 and the owner of its directory.

    Args:
        path: the file; a symbolic link in its last part is not followed.
        read: returns what the file holds.
        edit: may be called several times; what it raises ends it, and nothing has changed.

    Raises:
        OSError: nothing has changed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                _attempt(path, read, edit)
            except _MeanwhileError:
                _wait(deadline, "another program is writing it; nothing has been changed")
            else:
                return


def _wait(deadline: float, message: str) -> None:
    """Wait for a moment.

    Raises:
        OSError: the deadline is over.
    """
    if time.monotonic() >= deadline:
        raise OSError(errno.EBUSY, message)
    time.sleep(_INTERVAL)


def _attempt(path: Path, read: Callable[[Path], bytes], edit: Callable[[bytes], bytes]) -> None:
    """Do it, if nobody comes between.

    Raises:
        _MeanwhileError: somebody has; nothing has changed.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        check_regular(os.stat(path))
        fd = os.open(path, flags)
    except FileNotFoundError:
        _put(path, edit(b""), None)
        return
    try:  # closing it gives the lease back
        found = os.fstat(fd)
        check_regular(found)
        lease = file_leases.take(fd)
        if lease is False:
            raise _MeanwhileError
        if lease is None and 0 <= time.time() - found.st_mtime < QUIET:
            raise _MeanwhileError  # who is writing it cannot be known
        data = edit(read(path))
        if not _is(path, found) or _changed(fd, found) or (lease and file_leases.wanted(fd)):
            raise _MeanwhileError
        _put(path, data, fd, lease=bool(lease))
    finally:
        os.close(fd)


def _put(path: Path, data: bytes, old: int | None, lease: bool = False) -> None:
    """Write the new file, and put it in the place of the old one.

    Args:
        path: its place.
        data: its content.
        old: the old one, open; None if there was none.
        lease: there is a lease on the old one.

    Raises:
        _MeanwhileError: there is another file now, or somebody is about to write the old one.
    """
    # Nobody can have put a link where it will be: the name cannot be guessed, and must be new.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = open_new(temporary)
    try:
        try:
            if old is None:
                os.fchmod(fd, 0o600)
                _give(fd, path.parent)
            write_all(fd, data)
            if old is not None:
                _keep(old, fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        if old is None:
            _place(temporary, path)
        else:
            _exchange(temporary, path, old, lease)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _place(new: Path, path: Path) -> None:
    """Put a file where none was."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise _MeanwhileError from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        os.rename(new, path)  # a filesystem without links


def _exchange(new: Path, path: Path, old: int, lease: bool) -> None:
    """Put a file where the old one is, and that where the new one was.

    Raises:
        _MeanwhileError: it was another one, or somebody waits to write it.
    """
    found = os.fstat(old)
    if not _is(path, found):
        raise _MeanwhileError
    if not _swap(new, path):
        os.rename(new, path)
        return
    # Whoever came between has written, or holds, the file that has our temporary name now.
    if not _is(new, found) or _changed(old, found) or (lease and file_leases.wanted(old)):
        _swap(new, path)
        raise _MeanwhileError


def _swap(one: Path, other: Path) -> bool:
    """Exchange two files in one step; whether the filesystem can."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    result = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def _is(path: Path, found: os.stat_result) -> bool:
    """Whether a name leads to a file that has been seen."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


def _changed(fd: int, found: os.stat_result) -> bool:
    """Whether an open file has other content than when it was seen."""
    now = os.fstat(fd)
    return (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns)


# --- whose it is ----------------------------------------------------------------------------------


def _keep(old: int, new: int) -> None:
    """Give a new file what an old one has: owner, group, mode, attributes.

    Raises:
        OSError: it cannot be, and others may depend on it.
    """
    has = os.fstat(old)
    made = os.fstat(new)
    if (made.st_uid, made.st_gid) != (has.st_uid, has.st_gid):
        try:
            os.fchown(new, has.st_uid, has.st_gid)
        except PermissionError as error:
            message = (
                f"cannot keep its owner (user {has.st_uid}, group {has.st_gid}); "
                "run this as that user or as root"
            )
            raise PermissionError(errno.EPERM, message) from error
    names = set(_attributes(old))
    if _ACCESS_LIST not in names:
        # What the directory gives to new files by default.
        with contextlib.suppress(OSError):
            os.removexattr(new, _ACCESS_LIST)
    for name in sorted(names - _OF_CONTENT):
        try:
            value = os.getxattr(old, name)
            if _get(new, name) != value:
                os.setxattr(new, name, value)
        except OSError as error:
            # Labels of security modules and the like are given by rules, not by us.
            if name == _ACCESS_LIST or error.errno not in _NOT_PERMITTED:
                raise
    os.fchmod(new, stat.S_IMODE(has.st_mode))


_NOT_PERMITTED = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENODATA})


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def _get(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None


def _give(fd: int, directory: Path) -> None:
    """Give a file that root has made to the owner of its directory."""
    if os.geteuid() == 0:
        status = os.stat(directory)
        os.fchown(fd, status.st_uid, status.st_gid)


# --- one at a time --------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others of our own out; the lock is a file of its own because `path` is replaced.

    In a directory of the server's user, root follows no link and gives away only what it has made.

    Raises:
        OSError: somebody else holds it for too long.
    """
    lock, flags = f"{path}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fd = os.open(lock, flags)
    else:
        if os.geteuid() == 0:
            status = os.stat(path if path.exists() else path.parent)
            os.fchown(fd, status.st_uid, status.st_gid)
    deadline = time.monotonic() + PATIENCE_WITH_OURS
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _wait(deadline, f"another `account` command holds {lock}; nothing has been changed")
            else:
                break
        yield
    finally:
        os.close(fd)
