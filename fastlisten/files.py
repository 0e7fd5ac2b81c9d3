"""Reads files whose paths are configured: the configuration itself, certificates, keys, accounts.

Rules of this file: it imports nothing of the package; reading blocks but never waits for another
process, and is limited in size. All errors are OSErrors whose `strerror` fits after "cannot be
read:".

A path may lead to anything: a pipe that nobody writes to, a terminal, a tape that rewinds when
opened, an endless device. Only regular files are read. Files of /proc and /sys may block or be
endless as well, so files are opened without blocking and read up to the limit.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat

__all__ = ["check_regular", "read_file", "read_stream"]

_KINDS = {
    stat.S_IFIFO: "it is a pipe (FIFO), not a regular file",
    stat.S_IFSOCK: "it is a socket, not a regular file",
    stat.S_IFCHR: "it is a character device, not a regular file",
    stat.S_IFBLK: "it is a block device, not a regular file",
}

# The size of one read(2); most files take just one.
_CHUNK = 1 << 20

# Paths of descriptors that are already open: pipes and process substitutions of a shell.
_STREAM = re.compile(r"/dev/stdin|/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})")


def read_file(path: str | os.PathLike[str], limit: int, what: str) -> bytes:
    """Return the content of a regular file.

    Args:
        path: its path; symbolic links are followed.
        limit: its maximum size in bytes.
        what: what it should be, for the error: ``a certificate``.

    Raises:
        OSError: it cannot be read, is not a regular file, or is too large.
    """
    try:
        # Check first: merely opening some devices has side effects.
        check_regular(os.stat(path))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a null byte, or a surrogate that cannot be encoded
        raise OSError(errno.EINVAL, "invalid file name") from None
    try:
        found = os.fstat(fd)
        check_regular(found)
        if found.st_size > limit:
            raise _too_large(limit, what)
        return _read(fd, limit, what)
    finally:
        os.close(fd)


def read_stream(path: str | os.PathLike[str], limit: int, what: str) -> bytes:
    """Return the content of a regular file or of an open descriptor.

    ``/dev/stdin``, ``/dev/fd/3`` and ``/proc/self/fd/3`` may be pipes, and are read to their end.
    Any other path is read as by `read_file`.

    Args:
        path: the path.
        limit: the maximum size in bytes.
        what: what it should be, for the error.

    Raises:
        OSError: as for `read_file`.
    """
    match = _STREAM.fullmatch(os.fsdecode(path))
    if match is None:
        return read_file(path, limit, what)
    fd = os.dup(int(match[1] or match[2] or 0))
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.lseek(fd, 0, os.SEEK_SET)  # as if it had just been opened
        return _read(fd, limit, what)
    finally:
        os.close(fd)


def check_regular(found: os.stat_result) -> None:
    """Raise an OSError that says what it is for anything but a regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "it is not a regular file")
        raise OSError(errno.EINVAL, kind)


def _read(fd: int, limit: int, what: str) -> bytes:
    """Return everything up to the end.

    Raises:
        OSError: it cannot be read, or it exceeds the limit.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            chunk = os.read(fd, min(_CHUNK, limit + 1 - size))
        except BlockingIOError:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                raise  # a kernel file that waits for events
            select.select([fd], [], [])  # another process made the descriptor non-blocking
            continue
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit, what)


def _too_large(limit: int, what: str) -> OSError:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return OSError(errno.EFBIG, f"it is larger than {size}, too large for {what}")
