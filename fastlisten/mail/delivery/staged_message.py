"""Draft: one message on its way into the maildirs of its recipients.

Rules of this file: plain blocking system calls, to be run in a worker thread, by one at a time.
Octets are stored as they are given (CRLFs included). What happens to a message:

    write     tmp/NAME of the first recipient (or of the spool)
    prepare   that is synced, and linked into the tmp/ of every other recipient
    publish   new/NAME: renamed there, recipient by recipient; then every new/ is synced

so that all that can fail for want of space, rights or a sound disk has happened before the first
recipient sees anything. If a rename or the last sync fails all the same, what was renamed is
taken back: nobody has the message, or everybody.

That is what SMTP wants, where one reply stands for all. Recipients who are *independent* (LMTP)
go without the message one by one, each with the error of its own, as long as one is left.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
from fastlisten.private_files import open_new, sync_directory, write_all

__all__ = ["Draft"]

logger = logging.getLogger("fastlisten.mail")

#: Errors of link(2) that mean "not here", after which the file is copied instead: another
#: filesystem, one without links, too many links.
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

_COPY_SIZE = 1024 * 1024


class Draft:
    """One message that is being written into the maildirs of its recipients.

    After `publish`, `commit`, `discard` or an error of any but `write`, nothing is left open and
    nothing in tmp/.

    Attributes:
        name: the file's name in every maildir.
        path: where what has been written can be read until it is published; empty before.
        opened: something has been written that `publish` or `discard` must settle.
        errors: by the path of their maildirs, independent recipients who go without it.
    """

    __slots__ = (
        "_alive",
        "_fd",
        "_files",
        "_independent",
        "_size",
        "_spool",
        "errors",
        "name",
        "opened",
        "path",
    )

    def __init__(
        self,
        maildirs: Sequence[Maildir],
        name: str,
        *,
        spool: Spool | None = None,
        independent: bool = False,
    ) -> None:
        """Begin a draft.

        Args:
            maildirs: the recipients'; at least one, unless there is a spool.
            name: from `unique_name`.
            spool: where to write first, instead of into the first recipient's tmp/.
            independent: a recipient's failure is not the others'.
        """
        self.name = name
        self.path = ""
        self.opened = False
        self.errors: dict[str, OSError] = {}
        self._spool = spool
        self._independent = independent
        self._alive = list(maildirs)
        self._fd = -1
        self._size = 0
        #: What is on the disk, to be removed by `discard`: by directory, the file's path.
        self._files: dict[str, str] = {}

    # --- writing ------------------------------------------------------------------------------

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append to the message.

        Raises:
            OSError: it could not be written; the draft is to be discarded.
        """
        data = b"".join(pieces)
        if not self.opened:
            self._begin()
        elif self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        while True:
            try:
                write_all(self._fd, data)
                break
            except OSError as error:
                if self._spool is not None:
                    raise
                self._move(error)
        self._size += len(data)

    def suspend(self) -> None:
        """Close the file until the next `write`, so that slow clients hold no descriptors."""
        self._close()

    def _begin(self) -> None:
        """Create the file: in the spool, or with the first recipient where that is possible."""
        self.opened = True
        if self._spool is not None:
            self._fd = self._create(self._spool)
        while self._fd < 0:
            try:
                self._fd = self._create(self._alive[0])
            except OSError as error:
                self._give_up(self._alive[0], error)
        self.path = next(reversed(self._files.values()))

    def _move(self, error: OSError) -> None:
        """Go on in the next recipient's tmp/ with what has been written so far.

        Raises:
            OSError: there is no other recipient, or nobody's disk takes it.
        """
        source, target = self.path, -1
        first = self._alive[0]
        self._give_up(first, error, keep=True)
        while target < 0:
            home = self._alive[0]
            try:
                target = self._create(home)
                self._copy(source, target, self._size)
            except OSError as caught:
                if target >= 0:
                    os.close(target)
                    target = -1
                self._give_up(home, caught)
        self._close()
        self._remove(first)
        self._fd, self.path = target, self._files[self._alive[0].path]

    # --- delivering ---------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make it durable in every tmp/; follows a `write`.

        Raises:
            OSError: nobody can have the message; it is discarded.
        """
        try:
            os.fsync(self._fd)
            for maildir in self._alive[0 if self._spool is not None else 1 :]:
                try:
                    self._link(maildir)
                except OSError as error:
                    self._give_up(maildir, error)
            self._close()
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Rename into every new/ and sync them; follows `prepare`.

        Raises:
            OSError: nobody has the message; it is discarded.
        """
        try:
            for maildir in self._alive.copy():
                path = f"{maildir.new}/{self.name}"
                try:
                    os.rename(self._files[maildir.path], path)
                except OSError as error:
                    self._give_up(maildir, error)
                else:
                    self._files[maildir.path] = path
            for maildir in self._alive.copy():
                try:
                    sync_directory(maildir.new)
                except OSError as error:
                    self._give_up(maildir, error)
            for maildir in self._alive:
                del self._files[maildir.path]
        finally:
            self.discard()

    def commit(self, wanted: Callable[[], bool]) -> bool:
        """Prepare and publish.

        Args:
            wanted: asked last before the first recipient sees the message.

        Returns:
            False if it was not wanted any more; it is discarded then.

        Raises:
            OSError: nobody has the message; it is discarded.
        """
        self.prepare()
        if not wanted():
            self.discard()
            return False
        self.publish()
        return True

    def discard(self) -> None:
        """Remove what has been written, but for what was published."""
        self.opened = False
        try:
            self._close()
        finally:
            for place in list(self._files):
                self._unlink(place)

    # --- one place ----------------------------------------------------------------------------

    def _give_up(self, maildir: Maildir, error: OSError, *, keep: bool = False) -> None:
        """Go on without a recipient, and (unless its file is still needed) remove the file.

        Raises:
            OSError: the error, if the recipients are not independent or nobody else is left.
        """
        if not self._independent or len(self._alive) == 1:
            raise error
        self.errors[maildir.path] = error
        self._alive.remove(maildir)
        if not keep:
            self._remove(maildir)

    def _remove(self, maildir: Maildir) -> None:
        if maildir.path in self._files:
            self._unlink(maildir.path)

    def _unlink(self, place: str) -> None:
        path = self._files.pop(place)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return  # a reader or the administrator was faster
        except OSError as error:
            # A disk that fails to write often fails here too; `Spool.clean` comes later.
            logger.warning("cannot remove %s: %s", path, error.strerror)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _create(self, place: Spool) -> int:
        """Create the file in a tmp/, and the directories if they are missing."""
        path = f"{place.tmp}/{self.name}"
        try:
            fd = open_new(path)
        except FileNotFoundError:
            place.prepare()
            fd = open_new(path)
        self._files[place.path] = path
        return fd

    def _link(self, maildir: Maildir) -> None:
        """Put the same file into another tmp/, or a copy of it where links cannot be."""
        path = f"{maildir.tmp}/{self.name}"
        try:
            try:
                os.link(self.path, path)
            except FileNotFoundError:
                maildir.prepare()
                os.link(self.path, path)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            target = self._create(maildir)
            try:
                self._copy(self.path, target, self._size)
                os.fsync(target)
            finally:
                os.close(target)
        else:
            self._files[maildir.path] = path

    @staticmethod
    def _copy(source: str, target: int, size: int) -> None:
        """Write the first octets of a file once more."""
        with open(source, "rb", buffering=0) as file:
            while size and (piece := file.read(min(size, _COPY_SIZE))):
                write_all(target, piece)
                size -= len(piece)
        if size:
            raise OSError(errno.EIO, "a draft has become shorter", source)
