"""Maildir: messages as files, whole or not there, whatever happens in between.

Rules of this file: plain blocking system calls, to be run in a worker thread; no knowledge of
SMTP. Octets are stored as they are given (CRLFs included). What happens to a message:

    tmp/NAME  written, synced; linked into the tmp/ of every other recipient
    new/NAME  renamed there, recipient by recipient, once every tmp/ has it; then every new/ synced

so that all that can fail for want of space, rights or a sound disk has happened before the first
recipient sees anything. If a rename or the last sync fails all the same, what was renamed is
taken back. Format: https://cr.yp.to/proto/maildir.html; names as Dovecot and Courier write them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["STALE_AFTER", "Draft", "Maildir", "unique_name"]

logger = logging.getLogger("fastlisten.mail")

#: Seconds after which a file in tmp/ is left over from a crash: 36 hours, as the format says.
STALE_AFTER = 36 * 3600

#: Errors of link(2) that mean "not here", after which the file is copied instead: another
#: filesystem, one without links, too many links.
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

_COPY_SIZE = 1024 * 1024

_counter = itertools.count()

#: The process that this module's state is of, and the last part of the names it gives.
_process = (0, "")


def unique_name() -> str:
    """Return a file name that no other delivery uses, on this host or on another.

    Seconds, then microseconds, process, counter and 32 bits that are random for each process,
    then the host: the format asks for one of the middle ones, and each covers another's weakness
    (clocks that are set back, process ids that are used again, or shared by containers).
    """
    global _process
    pid = os.getpid()
    if _process[0] != pid:  # the first call, or the first after a fork
        host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
        _process = (pid, f"R{secrets.token_hex(4)}.{host}")
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{seconds}.M{nanoseconds // 1000}P{pid}Q{next(_counter)}{_process[1]}"


def sync_directory(path: str | Path) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every octet; a full disk shows as a short write first, as an error then."""
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(fd, view[written:])


class Maildir:
    """One Maildir.

    Paths are strings here: making a `pathlib.Path` of each takes a third of a delivery's time.

    Attributes:
        path: its directory; need not exist yet.
    """

    __slots__ = ("new", "path", "tmp")

    def __init__(self, path: str) -> None:
        self.path = path
        self.tmp = os.path.join(path, "tmp")
        self.new = os.path.join(path, "new")

    def prepare(self) -> None:
        """Make its directories, and those above it, durable and for the owner alone.

        tmp/ comes last, so that where it exists the others do.
        """
        path = Path(self.path)
        missing = [part for part in (path, *path.parents) if not part.is_dir()]
        for part in [*reversed(missing), path / "cur", path / "new", path / "tmp"]:
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=0o700)
                sync_directory(part.parent)

    def clean(self, now: float | None = None) -> int:
        """Remove what crashes have left in tmp/.

        Args:
            now: the time to compare with, in seconds since the epoch, the clock's if not given.

        Returns:
            How many files were removed.
        """
        oldest = (time.time() if now is None else now) - STALE_AFTER
        removed = 0
        try:
            entries = list(os.scandir(self.tmp))
        except FileNotFoundError:
            return 0
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if max(status.st_mtime, status.st_atime) < oldest and not entry.is_dir(
                    follow_symlinks=False
                ):
                    os.unlink(entry.path)
                    removed += 1
        return removed


class Draft:
    """One message that is being written into the maildirs of its recipients.

    Used by one thread at a time. After `commit`, `discard` or an error of either nothing is left
    open and nothing in tmp/.

    Attributes:
        name: the file's name in every maildir.
        opened: something has been written that `commit` or `discard` must settle.
    """

    __slots__ = ("_fd", "_maildirs", "_written", "name", "opened")

    def __init__(self, maildirs: Sequence[Maildir], name: str) -> None:
        self.name = name
        self.opened = False
        self._maildirs = maildirs
        self._fd = -1
        self._written: list[str] = []

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append to the message.

        Raises:
            OSError: it could not be written; the draft is to be discarded.
        """
        if not self.opened:
            self._fd = self._create(self._maildirs[0])
            self.opened = True
        elif self._fd < 0:
            self._fd = os.open(self._written[0], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        write_all(self._fd, b"".join(pieces))

    def suspend(self) -> None:
        """Close the file until the next `write`, so that slow clients hold no descriptors."""
        self._close()

    def commit(self, wanted: Callable[[], bool]) -> bool:
        """Deliver to every maildir; follows a `write`.

        Args:
            wanted: asked last before the first recipient sees the message.

        Returns:
            False if it was not wanted any more; it is discarded then.

        Raises:
            OSError: nobody has the message.
        """
        try:
            os.fsync(self._fd)
            for maildir in self._maildirs[1:]:
                self._link(maildir)
            if not wanted():
                self.discard()
                return False
            self._close()
            self._publish()
        except BaseException:
            self.discard()
            raise
        self.opened = False
        return True

    def discard(self) -> None:
        """Remove what has been written."""
        self._close()
        for path in self._written:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                # A disk that fails to write often fails here too; `Maildir.clean` comes later.
                logger.warning("cannot remove %s: %s", path, error.strerror)
        self._written.clear()
        self.opened = False

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _create(self, maildir: Maildir) -> int:
        """Create the file in a tmp/, and the maildir if that is missing."""
        path = f"{maildir.tmp}/{self.name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            maildir.prepare()
            fd = os.open(path, flags, 0o600)
        self._written.append(path)
        return fd

    def _link(self, maildir: Maildir) -> None:
        """Put the same file into another tmp/, or a copy of it where links cannot be."""
        source, path = self._written[0], f"{maildir.tmp}/{self.name}"
        try:
            try:
                os.link(source, path)
            except FileNotFoundError:
                maildir.prepare()
                os.link(source, path)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            self._copy(source, maildir)
        else:
            self._written.append(path)

    def _copy(self, source: str, maildir: Maildir) -> None:
        """Write the file once more, durably."""
        target = self._create(maildir)
        try:
            with open(source, "rb", buffering=0) as file:
                while piece := file.read(_COPY_SIZE):
                    write_all(target, piece)
            os.fsync(target)
        finally:
            os.close(target)

    def _publish(self) -> None:
        """Rename into every new/ and sync them, or take it all back."""
        published: list[str] = []
        try:
            for maildir in self._maildirs:
                path = f"{maildir.new}/{self.name}"
                os.rename(f"{maildir.tmp}/{self.name}", path)
                published.append(path)
            for maildir in self._maildirs:
                sync_directory(maildir.new)
        except OSError:
            self._written.extend(published)
            raise
