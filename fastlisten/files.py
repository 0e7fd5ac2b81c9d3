"""Reading files that somebody else names: configuration, certificates, keys, accounts.

Rules of this file: blocking system calls that never wait for a peer, and no file whole in memory
whose size is not bounded; it imports nothing of the package. Everything that goes wrong is an
OSError whose `strerror` can stand behind "cannot be read:".

A name may lead to anything: a pipe that nobody writes to, a terminal, a tape that rewinds, an
endless device. Only regular files are read. Those of /proc and /sys may block or never end too;
they are opened without waiting and read up to the bound.
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

# One read(2) of a regular file gives all of it up to this size.
_CHUNK = 1 << 20

# Names of descriptors that this process has open already: what a shell pipes or substitutes.
_STREAM = re.compile(r"/dev/stdin|/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})")


def read_file(path: str | os.PathLike[str], largest: int, what: str) -> bytes:
    """Return what a regular file holds.

    Args:
        path: its name; symbolic links are followed.
        largest: octets that it may have.
        what: what it should be, for the error: ``a certificate``.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    try:
        # Opening alone does something to some devices: it is not tried.
        check_regular(os.stat(path))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a zero byte, or a surrogate that stands for no byte
        raise OSError(errno.EINVAL, "no file has such a name") from None
    try:
        found = os.fstat(fd)
        check_regular(found)
        if found.st_size > largest:
            raise _too_large(largest, what)
        return _read(fd, largest, what)
    finally:
        os.close(fd)


def read_stream(path: str | os.PathLike[str], largest: int, what: str) -> bytes:
    """Return what a regular file holds, or a descriptor of this process that is named by path.

    ``/dev/stdin``, ``/dev/fd/3`` and ``/proc/self/fd/3`` are read to their end, pipes too: who
    names them has put there what is to be read. All else is as `read_file` has it.

    Args:
        path: the name.
        largest: octets that it may have.
        what: what it should be, for the error.

    Raises:
        OSError: as `read_file`.
    """
    match = _STREAM.fullmatch(os.fsdecode(path))
    if match is None:
        return read_file(path, largest, what)
    fd = os.dup(int(match[1] or match[2] or 0))
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.lseek(fd, 0, os.SEEK_SET)  # as if it were opened again
        return _read(fd, largest, what)
    finally:
        os.close(fd)


def check_regular(found: os.stat_result) -> None:
    """Raise OSError, which says what it is, for anything but a regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "it is not a regular file")
        raise OSError(errno.EINVAL, kind)


def _read(fd: int, largest: int, what: str) -> bytes:
    """Return everything up to the end.

    Raises:
        OSError: it cannot be read, or there is more than may be.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            chunk = os.read(fd, min(_CHUNK, largest + 1 - size))
        except BlockingIOError:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                raise  # a file of the kernel's that waits for events
            select.select([fd], [], [])  # a descriptor that somebody else has made so
            continue
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > largest:
            raise _too_large(largest, what)


def _too_large(largest: int, what: str) -> OSError:
    bound = f"{largest >> 20} MiB" if largest >= 1 << 20 else f"{largest >> 10} KiB"
    return OSError(errno.EFBIG, f"it is larger than {bound}, too large for {what}")
