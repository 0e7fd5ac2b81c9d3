"""Writes files that only their owner can read: tokens, keys, passwords, mail.

Rules of this file: blocking system calls; nothing of the package is imported. When a function
returns, the file and its directory entry are on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets

__all__ = ["create_once", "make_directory", "open_new", "replace", "sync_directory", "write_all"]


def create_once(path: str, content: bytes) -> bool:
    """Create a file atomically.

    It is written under an unpredictable name, then linked to its own: if several processes do this
    at the same time, one of them wins, and none sees an incomplete file.

    Returns:
        False if the file already exists, even if another process has just created it.

    Raises:
        OSError: it cannot be created.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    sync_directory(os.path.dirname(path))
    return True


def replace(path: str, content: bytes) -> None:
    """Create or replace a file atomically.

    Processes that have the old file open keep reading the old one.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    temporary = _write_temporary(path, content)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def _write_temporary(path: str, content: bytes) -> str:
    """Write a file with a new name beside `path`; return its name."""
    temporary = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    fd = open_new(temporary)
    try:
        write_all(fd, content)
        os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    return temporary


def open_new(path: str | os.PathLike[str]) -> int:
    """Create a file with mode 0600; return a descriptor for writing.

    Raises:
        FileExistsError: the name is in use, even if only by a symbolic link.
        OSError: the file cannot be created.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def make_directory(path: str, owner: tuple[int, int] | None = None) -> None:
    """Create a directory with mode 0700, and those above it if they are missing.

    Args:
        path: the directory. One that another process creates at the same time is left as it is.
        owner: user and group; None for those of this process.

    Raises:
        OSError: it cannot be created, or it is no directory.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.isdir(path):
            return
        raise
    if owner is not None:
        # Not through a link that somebody has put in its place.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, *owner)
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`; a full disk causes a short write before it causes an error."""
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(fd, view[written:])


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Flush the entries of a directory to disk.

    Args:
        path: the directory; an empty string is the working directory.
    """
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
