"""Writing files that only their owner can read: tokens, keys, passwords, mail.

Rules of this file: blocking system calls; nothing of the package is imported. What is written is
durable when a function returns, the directory's entry included.
"""

from __future__ import annotations

import contextlib
import os
import secrets

__all__ = ["create_once", "open_new", "replace", "sync_directory", "write_all"]


def create_once(path: str, content: bytes) -> bool:
    """Create a file, whole and durable or not at all.

    It is written under a name that cannot be guessed, then linked to its own: of several processes
    that start together one comes first, and no other reads half a file.

    Returns:
        False if the file exists already, or another process was faster.

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
    """Write a file in place of whatever has its name, whole and durable or not at all.

    Whoever had the old file open keeps reading the old file.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    temporary = _write_temporary(path, content)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def _write_temporary(path: str, content: bytes) -> str:
    """Write a durable file with a new name beside `path`; return its name."""
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
    """Create a file for its owner alone; return its descriptor, open for writing.

    Raises:
        FileExistsError: something has this name already, if only a symbolic link.
        OSError: the file cannot be created.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`: a full disk causes a short write first, and an error only then."""
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(fd, view[written:])


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the entries of a directory durable.

    Args:
        path: the directory; an empty text is the working directory.
    """
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
