"""Backups as a tar archive or as a directory: writing one, and reading one.

Rules of this file: names, octets and times of files; backup.py says which there are. A directory is
used through a descriptor, so that it may be one that only root could open. Times are kept to the
nanosecond, because INTERNALDATE is one of them. What is read is believed only if it looks like an
account: no other names, no links, no devices. A backup that was not finished is known as such:

    a directory  has the file index.incomplete until it is complete
    an archive   ends with the file index.complete if its index.db has the comment `fastlisten`;
                 tar does not notice that members at its end are missing
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from fastlisten.private_files import write_all

__all__ = ["DirectorySink", "DirectorySource", "NotABackupError", "Source", "TarSink", "TarSource"]

#: A file in an account, in a folder, or one of their messages.
_NAME = re.compile(r"(?:\.[^/]+/)?(?:(?:cur|new)/)?[^/]+")

_PIECE = 1 << 20

_COMMENT, _COMPLETE, _INCOMPLETE = "fastlisten", "index.complete", "index.incomplete"

#: What tarfile and the modules that decompress for it raise.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


class NotABackupError(Exception):
    """What was given is no backup of an account."""


class Content(Protocol):
    """The octets of a file."""

    def read(self, size: int) -> bytes:
        """Return at most so many; none at the end.

        Raises:
            NotABackupError: the backup ends here.
            OSError: they cannot be read.
        """


class Source(Protocol):
    """Where a backup comes from."""

    def files(self) -> Iterator[tuple[str, Content, int]]:
        """Yield the name, the content and the time in ns of every file.

        Raises:
            NotABackupError: there is something that no account has.
            OSError: it cannot be read.
        """


def _is_passing(name: str) -> bool:
    """Return whether a file of an account is not kept: it is made again, or was not complete."""
    parts = name.split("/")
    if "tmp" in parts[:-1]:
        return True
    return parts[0].startswith("index.") and name not in ("index.db", "index.db-wal")


def _check(name: str) -> str:
    parts = name.split("/")
    if not _NAME.fullmatch(name) or "." in parts or ".." in parts or "\0" in name:
        raise NotABackupError(f"{name!r} is nothing that an account has")
    return name


# --- tar ------------------------------------------------------------------------------------------


class TarSink:
    """Writes an archive of POSIX.1-2001.

    Args:
        file: where to; it need not be seekable.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def directory(self, name: str) -> None:
        """Make a directory."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o700
        self._tar.addfile(info)

    def file(self, name: str, fd: int, size: int, mtime: int) -> None:
        """Store a file."""
        info = tarfile.TarInfo(name)
        info.mode, info.size, info.mtime = 0o600, size, mtime // 10**9
        info.pax_headers = {"mtime": f"{mtime // 10**9}.{mtime % 10**9:09}"}
        if name == "index.db":
            info.pax_headers["comment"] = _COMMENT
        with open(fd, "rb", closefd=False) as content:
            content.seek(0)
            self._tar.addfile(info, content)

    def close(self) -> None:
        """Write the end."""
        self._tar.addfile(tarfile.TarInfo(_COMPLETE))
        self._tar.close()


class TarSource:
    """Reads an archive, which may be compressed, and may have been made by tar(1).

    Args:
        file: the archive; it need not be seekable.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def files(self) -> Iterator[tuple[str, Content, int]]:
        """Yield the files."""
        ends = False
        try:
            with tarfile.open(fileobj=self._file, mode="r|*") as tar:
                for info in tar:
                    name = info.name.removeprefix("./")
                    ends |= info.pax_headers.get("comment") == _COMMENT
                    if name == _COMPLETE:
                        return
                    if info.isdir() or _is_passing(name):
                        continue
                    if not info.isreg():
                        raise NotABackupError(f"{name!r} is no regular file")
                    content = tar.extractfile(info)
                    assert content is not None
                    yield _check(name), _Member(content), _time_of(info)
        except _DAMAGE as error:
            raise NotABackupError(str(error)) from error
        if ends:
            raise NotABackupError("it is not complete")


class _Member:
    """The octets of a member; what is wrong with them is wrong with the backup."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Return octets."""
        try:
            return self._file.read(size)
        except _DAMAGE as error:
            raise NotABackupError(str(error)) from error


def _time_of(info: tarfile.TarInfo) -> int:
    """Return a member's time in ns; a float could not hold it."""
    text = str(info.pax_headers.get("mtime", int(info.mtime)))
    seconds, _, fraction = text.partition(".")
    try:
        return int(seconds) * 10**9 + int(f"{fraction:0<9.9}")
    except ValueError:
        raise NotABackupError(f"{info.name!r} has the time {text!r}") from None


# --- a directory ----------------------------------------------------------------------------------


class DirectorySink:
    """Writes files as they are in the account.

    Args:
        directory: a descriptor of an empty directory.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(_INCOMPLETE, flags, 0o600, dir_fd=directory))

    def directory(self, name: str) -> None:
        """Make a directory."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._directory)

    def file(self, name: str, fd: int, size: int, mtime: int) -> None:
        """Store a file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=self._directory)
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            while piece := os.read(fd, _PIECE):
                write_all(target, piece)
            os.utime(target, ns=(mtime, mtime))
        finally:
            os.close(target)

    def close(self) -> None:
        """Have all of it on the disk."""
        os.sync()
        os.unlink(_INCOMPLETE, dir_fd=self._directory)
        os.fsync(self._directory)


class DirectorySource:
    """Reads a directory, which may be an account's that was copied by other means.

    Args:
        directory: a descriptor of it.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def files(self) -> Iterator[tuple[str, Content, int]]:
        """Yield the files."""
        if _INCOMPLETE in os.listdir(self._directory):
            raise NotABackupError("it is not complete")
        for above, below, names, fd in os.fwalk(".", dir_fd=self._directory):
            prefix = above[2:]  # after "./"
            for name in below:
                # It is not gone into, so its messages would be missing.
                if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    path = f"{prefix}/{name}".lstrip("/")
                    raise NotABackupError(f"{path!r} is a symbolic link")
            for name in sorted(names):
                path = f"{prefix}/{name}".lstrip("/")
                if not _is_passing(path):
                    yield from _opened(_check(path), name, fd)


def _opened(path: str, name: str, directory: int) -> Iterator[tuple[str, IO[bytes], int]]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotABackupError(f"{path!r} is a symbolic link") from None
        raise
    with open(fd, "rb") as content:
        status = os.fstat(content.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotABackupError(f"{path!r} is no regular file")
        yield path, content, status.st_mtime_ns
