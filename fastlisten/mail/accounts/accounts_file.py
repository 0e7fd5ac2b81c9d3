"""The accounts file while it is in use: which version of it is in force.

Rules of this file: blocking reads of a small file; no loop. `cp new accounts.toml`, like editors
and other tools, empties the file first and then fills it bit by bit. At any moment its content may
be valid and lack accounts that exist. So:

    it changed less than QUIET seconds ago, or a     the previous version holds, and so does what is
    program has it open for writing                  new; nobody else is refused permanently
                                                     (`Roster.certain`)
    it has not changed for QUIET seconds             it holds, alone
    it is missing, empty, or does not load           the previous version holds; reported once this
                                                     has lasted for QUIET seconds

An empty file does not mean that there are no accounts, whatever its age: that is what a failed copy
or a crash leaves behind. For no accounts, write a comment into it.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fastlisten.errors import ConfigurationError, Problem
from fastlisten.log_events import log
from fastlisten.mail.accounts import file_leases
from fastlisten.mail.accounts.roster import Roster, Transition, read_accounts
from fastlisten.mail.address import AddressError, parse_mailbox

__all__ = ["LONGEST", "QUIET", "Accounts", "parse_file"]

logger = logging.getLogger("fastlisten.mail")

#: Seconds without a change after which a file is taken to be complete. Programs write a file of
#: this size in milliseconds; two seconds leave room for a slow disk or network between two writes.
QUIET = 2.0

#: Seconds after which a file that keeps changing, or that a program keeps open (but not both), is
#: trusted: otherwise a removed account would live for ever.
LONGEST = 60.0

#: What changes whenever a file does: device, inode, size, times of content and of status.
_Signature = tuple[int, ...]


class _Version(NamedTuple):
    """A version of the file, as it was read.

    Attributes:
        signature: the file's, empty if there is none.
        roster: its accounts, None if it could not be used.
        problem: why it could not be used.
        written: a program has it open for writing.
        age: seconds since it changed, by the file's own time.
    """

    signature: _Signature
    roster: Roster | None
    problem: Exception | None = None
    written: bool = False
    age: float = 0.0


class _TornError(Exception):
    """The file changed while it was being read."""


class Accounts:
    """The accounts in force.

    Attributes:
        path: the file.
        roster: the version in force; None until one could be read, and mail is deferred.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Callable[[], float] = time.monotonic,
        date: Callable[[], float] = time.time,
    ) -> None:
        """Remember the path; nothing is read yet.

        Args:
            path: the file.
            clock: returns seconds that never go back.
            date: returns seconds since the epoch, as files' times are counted.
        """
        self.path = Path(path)
        self.roster: Roster | None = None
        self._clock = clock
        self._date = date
        self._lock = threading.Lock()
        self._whole: Roster | None = None  # the last complete version
        self._signature: _Signature | None = None
        self._seen = 0.0  # when that signature was first seen
        self._changing: float | None = None  # since when no version has been complete
        self._taken = 0.0  # when the file was last read
        self._again = 0.0  # when the same file is to be read again
        self._reported: _Signature | None = None
        self._postmaster = ""
        self._hosts: frozenset[str] = frozenset()
        self._delimiter = ""

    def appoint(self, postmaster: str, hostname: str, delimiter: str = "") -> None:
        """Choose the postmaster and the delimiter; takes effect at the next `reload`.

        Args:
            postmaster: the account's address or alias; empty to leave the choice to the file.
            hostname: the name of a server that sends DSNs as postmaster at that name.
            delimiter: begins the detail of an address; empty if others have chosen, or nothing.
        """
        try:
            host = parse_mailbox(f"postmaster@{hostname}").domain
        except AddressError:
            hosts = self._hosts  # nobody can send mail to it
        else:
            hosts = self._hosts | {host}
        with self._lock:
            chosen = (postmaster or self._postmaster, hosts, delimiter or self._delimiter)
            if chosen != (self._postmaster, self._hosts, self._delimiter):
                self._postmaster, self._hosts, self._delimiter = chosen
                self._again = 0.0

    def current(self) -> bool:
        """Whether reading the file again would change nothing now. One stat(2)."""
        return self._clock() < self._again and self._signature == self._look()

    def reload(self) -> Roster | None:
        """Read the file if it may have changed, and return the version in force."""
        with self._lock:
            if not self.current():
                self._take(self._read())
            return self.roster

    def _take(self, version: _Version) -> None:
        """Decide what is in force after the file has been read."""
        now = self._clock()
        if version.signature != self._signature:
            self._signature, self._seen = version.signature, now
        if self._changing is None or now - self._taken >= LONGEST / 4:
            self._changing = now  # not read for a long time; it may have been complete
        self._taken = now
        rest = max(now - self._seen, version.age)
        quiet = rest >= QUIET
        whole = quiet and not version.written
        if not whole and version.roster is not None:
            whole = now - self._changing >= LONGEST and (quiet or not version.written)
        if whole:
            self._again = math.inf
            self._changing = None
            if version.roster is not None:
                self._compare(version.roster)
                self._whole = version.roster
            if self._whole is not None:
                self.roster = self._whole
        else:
            self._again = now + (QUIET if quiet else QUIET - rest)
            if version.roster is not None:
                self.roster = Transition(self._whole, version.roster)
            elif self._whole is not None:
                self.roster = Transition(self._whole, Roster())
        known = version.signature == self._reported
        if version.problem is not None and not known and (whole or self._whole is None):
            self._reported = version.signature
            self._report(version.problem)

    def _read(self) -> _Version:
        """Read the file."""
        signature: _Signature = ()
        try:
            before = os.stat(self.path)
            signature = _signature(before)
            content = read_accounts(self.path)
            written = self._is_written()
            if self._look() != signature:
                # It differs from the remembered signature, so it is read again next time.
                raise _TornError("it is being written")
            roster = parse_file(content, str(self.path))
            roster.appoint(self._postmaster, self._hosts, self._delimiter)
        except (OSError, ConfigurationError, _TornError) as error:
            return _Version(signature or self._look(), None, error)
        # A time in the future means nothing.
        age = max(0.0, self._date() - before.st_mtime_ns / 1e9)
        return _Version(signature, roster, None, written, age)

    def _is_written(self) -> bool:
        """Whether a program has the file open for writing, as far as that can be known."""
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return file_leases.take(fd) is False
        finally:
            os.close(fd)

    def _compare(self, roster: Roster) -> None:
        """Log what is new or missing, so that half a file does not go unnoticed."""
        if not roster.appointed and (self._whole is None or self._whole.appointed):
            log(
                logger,
                logging.WARNING,
                "postmaster-missing",
                "%s has no account %s, the postmaster: that mail goes to %s",
                self.path,
                self._postmaster,
                roster.postmaster.name if roster.postmaster else "nobody",
                file=str(self.path),
                user=str(self._postmaster),
            )
        if self._whole is None:
            return
        before = {account.name for account in self._whole.accounts}
        after = {account.name for account in roster.accounts}
        if before != after:
            log(
                logger,
                logging.INFO,
                "accounts-changed",
                "%s: %d accounts now, %d new, %d removed",
                self.path,
                len(after),
                len(after - before),
                len(before - after),
                file=str(self.path),
                count=len(after),
            )

    def _report(self, problem: Exception) -> None:
        deferred = self.roster is None
        consequence = "mail is deferred with 451" if deferred else "the previous version holds"
        if isinstance(problem, FileNotFoundError):
            log(
                logger,
                logging.WARNING,
                "accounts-missing",
                "%s does not exist; `fastlisten account add` makes an account; %s",
                self.path,
                consequence,
                file=str(self.path),
            )
        else:
            log(
                logger,
                logging.ERROR,
                "accounts-error",
                "%s cannot be used; %s: %s",
                self.path,
                consequence,
                problem,
                file=str(self.path),
                error=str(problem),
            )

    def _look(self) -> _Signature:
        """Return the file's signature, empty while there is no file."""
        try:
            return _signature(os.stat(self.path))
        except OSError:
            return ()


def parse_file(content: bytes, file: str) -> Roster:
    """Return the accounts in the content of a file.

    Raises:
        ConfigurationError: it has mistakes, or is empty.
    """
    if not content.strip(b"\0 \t\r\n"):
        raise ConfigurationError([Problem(_EMPTY, file)])
    return Roster.parse(content, file)


_EMPTY = "it is empty; for no accounts, write a comment into it"


def _signature(status: os.stat_result) -> _Signature:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
