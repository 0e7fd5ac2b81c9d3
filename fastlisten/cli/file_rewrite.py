"""Rewrites a file that other programs may be writing too, so that no changes are lost.

Rules of this file: blocking system calls; it knows nothing about the file's content. The new file
replaces the old one atomically and durably. It gets the same owner, group, mode, access control
list and other extended attributes, so that everybody who could read the old file can read it.
Others may write the file at the same time, in place (`cp`, many editors) or by a rename:

    another `account` command is running        wait for it, at most LOCK_TIMEOUT
    another program has it open for writing     wait for it, at most WRITER_TIMEOUT
    another program opens it for writing        it waits until we notice and start over
    the file was replaced before our rename     exchange the two files again and start over

To start over is to read the file and edit it again. The second and third case need a read lease
(file_leases.py). Without one (not the owner, a network filesystem) we wait until the file has not
changed for a while, and notice only completed writes.
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

__all__ = ["LOCK_TIMEOUT", "WRITER_TIMEOUT", "rewrite"]

#: Seconds to wait for other programs that are writing the file.
WRITER_TIMEOUT = 10.0

#: Seconds to wait for other `account` commands. A script may have started a hundred of them, which
#: hash passwords one after the other.
LOCK_TIMEOUT = 60.0

#: Seconds between two attempts.
_INTERVAL = 0.02

#: Extended attributes that depend on the content, and must not be copied.
_OF_CONTENT = frozenset({"security.ima", "security.evm"})

_ACCESS_LIST = "system.posix_acl_access"

#: renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class _ConcurrentWriteError(Exception):
    """Another program is writing the file, or has replaced it."""


def rewrite(path: Path, read: Callable[[Path], bytes], edit: Callable[[bytes], bytes]) -> None:
    """Replace the content of a file by what `edit` returns for it; create the file if needed.

    A new file has mode 0600 and the owner of its directory.

    Args:
        path: the file; must not be a symbolic link.
        read: returns the file's content.
        edit: returns the new content; may be called several times. If it raises, the file is
            unchanged.

    Raises:
        OSError: the file is unchanged.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        deadline = time.monotonic() + WRITER_TIMEOUT
        while True:
            try:
                _attempt(path, read, edit)
            except _ConcurrentWriteError:
                _wait(deadline, "another program is writing the file; nothing has been changed")
            else:
                return


def _wait(deadline: float, message: str) -> None:
    """Wait before the next attempt.

    Raises:
        OSError: the deadline has passed; its text is `message`.
    """
    if time.monotonic() >= deadline:
        raise OSError(errno.EBUSY, message)
    time.sleep(_INTERVAL)


def _attempt(path: Path, read: Callable[[Path], bytes], edit: Callable[[bytes], bytes]) -> None:
    """Try to edit the file.

    Raises:
        _ConcurrentWriteError: another program interfered; the file is as that program left it.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        check_regular(os.stat(path))
        fd = os.open(path, flags)
    except FileNotFoundError:
        _put(path, edit(b""), None)
        return
    try:  # closing it releases the lease
        found = os.fstat(fd)
        check_regular(found)
        lease = file_leases.take(fd)
        if lease is False:
            raise _ConcurrentWriteError
        if lease is None and 0 <= time.time() - found.st_mtime < QUIET:
            raise _ConcurrentWriteError  # without a lease, assume that it is being written
        data = edit(read(path))
        if not _is(path, found) or _changed(fd, found) or (lease and file_leases.wanted(fd)):
            raise _ConcurrentWriteError
        _put(path, data, fd, lease=bool(lease))
    finally:
        os.close(fd)


def _put(path: Path, data: bytes, old: int | None, lease: bool = False) -> None:
    """Write a new file and replace the old one by it.

    Args:
        path: the path of the file.
        data: the new content.
        old: the descriptor of the old file; None if there was none.
        lease: there is a lease on the old file.

    Raises:
        _ConcurrentWriteError: the old file has been replaced, or is about to be written.
    """
    # No link can be waiting there: the name cannot be guessed, and the file must not exist.
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
    """Move a file to a path that must not exist."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise _ConcurrentWriteError from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        os.rename(new, path)  # a filesystem without links


def _exchange(new: Path, path: Path, old: int, lease: bool) -> None:
    """Replace the old file by the new one.

    Raises:
        _ConcurrentWriteError: the old file has been replaced or changed, or is about to be.
    """
    found = os.fstat(old)
    if not _is(path, found):
        raise _ConcurrentWriteError
    if not _swap(new, path):
        os.rename(new, path)
        return
    # The old file now has our temporary name. If it is not the expected one, undo the exchange.
    if not _is(new, found) or _changed(old, found) or (lease and file_leases.wanted(old)):
        _swap(new, path)
        raise _ConcurrentWriteError


def _swap(one: Path, other: Path) -> bool:
    """Exchange two files atomically; return False if the filesystem cannot do that."""
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
    """Tell whether a path still refers to a file with this status."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


def _changed(fd: int, found: os.stat_result) -> bool:
    """Tell whether an open file has been written since it had this status."""
    now = os.fstat(fd)
    return (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns)


# --- owner, mode and attributes -------------------------------------------------------------------


def _keep(old: int, new: int) -> None:
    """Copy owner, group, mode and extended attributes from the old file to the new one.

    Raises:
        OSError: something that others may depend on cannot be copied.
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
        # Remove the directory's default access control list.
        with contextlib.suppress(OSError):
            os.removexattr(new, _ACCESS_LIST)
    for name in sorted(names - _OF_CONTENT):
        try:
            value = os.getxattr(old, name)
            if _get(new, name) != value:
                os.setxattr(new, name, value)
        except OSError as error:
            # Labels of security modules and the like are set by policy, so a failure is no error.
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
    """As root, give a new file to the owner of its directory."""
    if os.geteuid() == 0:
        status = os.stat(directory)
        os.fchown(fd, status.st_uid, status.st_gid)


# --- the lock -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock out other `account` commands. The lock is a separate file because `path` is replaced.

    The directory may belong to the server's user, so root follows no link there and changes the
    owner only of a file that it has just created.

    Raises:
        OSError: another command held the lock for too long.
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
    deadline = time.monotonic() + LOCK_TIMEOUT
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
