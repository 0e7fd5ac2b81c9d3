"""A message as files on their way into the maildirs of its recipients.

Rules of this file: blocking system calls, for one worker thread at a time. Octets are stored as
they are given, CRLFs included. The steps:

    write     into tmp/NAME of the first recipient (or of the spool)
    prepare   sync that file, and link it into the tmp/ of every other recipient
    move      rename to new/NAME, recipient by recipient
    settle    once every new/ is synced, for several messages together (delivery_queue.py)

So whatever can fail for lack of space, rights or a sound disk fails before the first recipient sees
anything. If a rename or the last sync fails all the same, what was renamed is removed again: either
everybody has the message or nobody.

A mailbox with a quota is looked at when the file is renamed into it, under a lock
(mailbox_room.py). With several recipients of which all get the message or none, all locks are
taken, in the order of their paths, before the first rename. If something is done between `prepare`
and `move` that cannot be taken back, the quota counts only before it (`take_room`).

SMTP needs that, because one reply stands for all recipients. *Independent* recipients (LMTP) fail
one by one, each with its own error, as long as one is left.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Protocol

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
from fastlisten.private_files import open_new, write_all

__all__ = ["StagedMessage"]

logger = logging.getLogger("fastlisten.mail")

#: Errors of link(2) that mean "not here", after which the file is copied instead: another
#: filesystem, one without links, too many links.
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

_COPY_SIZE = 1024 * 1024


class Room(Protocol):
    """The room in a mailbox."""

    def taken(self, path: str) -> AbstractContextManager[None]:
        """Have room for a file that is moved into the mailbox within the block.

        Raises:
            OSError: there is none.
        """


class StagedMessage:
    """One message that is being written into the maildirs of its recipients.

    After `settle`, `discard`, or an error of anything but `write`, no file is open and none is left
    in tmp/.

    Attributes:
        name: the file's name in every maildir.
        path: the file that holds what has been written until it is published; empty before.
        opened: there are files that `settle` or `discard` has yet to deal with.
        errors: why independent recipients do not get the message, by the path of their maildir.
    """

    __slots__ = (
        "_alive",
        "_fd",
        "_files",
        "_independent",
        "_rooms",
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
        rooms: Mapping[str, Room] | None = None,
    ) -> None:
        """Begin a message; nothing is written yet.

        Args:
            maildirs: the recipients'; at least one, unless there is a spool.
            name: from `unique_name`.
            spool: where to write first, instead of into the first recipient's tmp/.
            independent: the failure of one recipient does not concern the others.
            rooms: of recipients that have a quota, by the path of their maildir.
        """
        self.name = name
        self.path = ""
        self.opened = False
        self.errors: dict[str, OSError] = {}
        self._spool = spool
        self._independent = independent
        self._rooms = rooms or {}
        self._alive = list(maildirs)
        self._fd = -1
        self._size = 0
        #: What is on the disk, to be removed by `discard`: by directory, the file's path.
        self._files: dict[str, str] = {}

    # --- writing ------------------------------------------------------------------------------

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append to the message.

        Raises:
            OSError: it could not be written; discard the message.
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
        """Create the file: in the spool, or with the first recipient where it can be created."""
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
        """Move what has been written so far to the next recipient's tmp/, and go on there.

        Raises:
            OSError: there is no other recipient, or none to whom it can be written.
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
        """Make the message durable in every tmp/; call it after `write`.

        Raises:
            OSError: nobody can have the message; it has been discarded.
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

    def take_room(self) -> None:
        """Look for room in all mailboxes now, and not when the message is moved.

        Raises:
            OSError: there is none for somebody; the message has been discarded.
        """
        try:
            for maildir in self._alive.copy():
                try:
                    with self._room(maildir):
                        pass
                except OSError as error:
                    self._give_up(maildir, error)
        except BaseException:
            self.discard()
            raise
        self._rooms = {}

    def _room(self, maildir: Maildir) -> AbstractContextManager[None]:
        room = self._rooms.get(maildir.path)
        return nullcontext() if room is None else room.taken(self._files[maildir.path])

    def move(self) -> list[str]:
        """Rename the files into every new/; call it after `prepare`.

        Returns:
            The directories to be synced before `settle` is called.

        Raises:
            OSError: nobody has the message; it has been discarded.
        """
        try:
            with ExitStack() as rooms:
                together = bool(self._rooms) and not self._independent
                if together:
                    # By account first, though one may be an inbox and another a folder.
                    for maildir in sorted(self._alive, key=lambda one: f"{one.path}/"):
                        rooms.enter_context(self._room(maildir))
                for maildir in self._alive.copy():
                    path = f"{maildir.new}/{self.name}"
                    try:
                        with nullcontext() if together else self._room(maildir):
                            self._rename(maildir, path)
                    except OSError as error:
                        self._give_up(maildir, error)
                    else:
                        self._files[maildir.path] = path
        except BaseException:
            self.discard()
            raise
        return [maildir.new for maildir in self._alive]

    def settle(self, errors: Mapping[str, OSError]) -> None:
        """Leave the message to its recipients.

        Args:
            errors: why directories that `move` returned could not be synced.

        Raises:
            OSError: nobody has the message; it has been discarded.
        """
        try:
            for maildir in self._alive.copy():
                if maildir.new in errors:
                    self._give_up(maildir, errors[maildir.new])
            for maildir in self._alive:
                del self._files[maildir.path]
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the files, except those that were published."""
        self.opened = False
        try:
            self._close()
        finally:
            for place in list(self._files):
                self._unlink(place)

    # --- one place ----------------------------------------------------------------------------

    def _give_up(self, maildir: Maildir, error: OSError, *, keep: bool = False) -> None:
        """Go on without a recipient, and remove its file unless it is still needed.

        Raises:
            OSError: `error`, if the recipients are not independent or no other is left.
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
            # A disk that cannot be written often fails here too; `Spool.clean` tries again later.
            logger.warning("cannot remove %s: %s", path, error.strerror)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _create(self, place: Spool) -> int:
        """Create the file in a tmp/, and missing directories."""
        path = f"{place.tmp}/{self.name}"
        try:
            fd = open_new(path)
        except FileNotFoundError:
            place.prepare()
            fd = open_new(path)
        self._files[place.path] = path
        return fd

    def _link(self, maildir: Maildir) -> None:
        """Link the file into another tmp/, or copy it where it cannot be linked."""
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

    def _rename(self, maildir: Maildir, path: str) -> None:
        """Rename the file into new/, which is made if it is missing: backups skip empty ones."""
        staged = self._files[maildir.path]
        try:
            os.rename(staged, path)
        except FileNotFoundError:
            maildir.prepare()
            os.rename(staged, path)

    @staticmethod
    def _copy(source: str, target: int, size: int) -> None:
        """Copy the first octets of a file."""
        with open(source, "rb", buffering=0) as file:
            while size and (piece := file.read(min(size, _COPY_SIZE))):
                write_all(target, piece)
                size -= len(piece)
        if size:
            raise OSError(errno.EIO, "the file is shorter than what was written", source)
