"""Logins: names and passwords, verified within bounds, and nothing told by the time it takes.

Rules of this file: the loop never hashes. An attempt passes these gates, in this order:

    the penalty of its address    penalties.py: waits, one at a time after failures
    what is known                 login_cache.py:  a login that was right within the last hour is
                                  right again, and waits for nothing more
    the queue of the process      verification_queue.py: at most WAITING; whose address and name
                                  have the fewest failures is next
    a thread                      at most AT_ONCE, each takes the memory of one hash (64 MiB)

The penalty comes first: what is known would answer guesses at no cost. In the thread every attempt
costs one verification with the same parameters, whatever is wrong: the name, the password, its
length, an account that has none (`passwords.Decoys`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import threading
import time
from concurrent.futures import Future
from functools import partial

from fastlisten.log_events import address_text, log
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.logins.login_cache import Known, Memory
from fastlisten.mail.logins.penalties import LoginsBusyError, Penalties
from fastlisten.mail.logins.verification_queue import CrowdedError, Queue

__all__ = ["Logins", "LoginsBusyError"]

logger = logging.getLogger("fastlisten.mail")

#: Verifications at the same time. Each keeps a processor busy (or several: its lanes), which mail
#: needs, too.
AT_ONCE = 2

#: Verifications that wait for a thread: about a quarter of a minute of them. It has to hold the
#: first guesses of some hundred addresses, which nothing tells from the first logins of others.
WAITING = 256

_CROWDED = f"{WAITING} logins are waiting"

#: Stands for the hash of a name that has none, so that looking for it costs the same.
_NO_HASH = "$" * 97

#: Failures that are logged in a minute; of the others their number, when it has passed.
LOGGED = 60

_MINUTE = 60.0

#: Characters of a name that are logged.
LOGGED_NAME = 80


class _UndecidedError(LoginsBusyError):
    """It is wrong by what can be read of an accounts file that may be half written.

    It counts as a guess, and is not called one.
    """


class Logins:
    """Who may log in; one for each post office.

    Attributes:
        available: passwords can be verified: argon2-cffi is installed.
        penalties: the waiting times of addresses.
    """

    def __init__(self, accounts: Accounts, penalties: Penalties | None = None) -> None:
        self.available = passwords.available()
        self.penalties = penalties or Penalties()
        self._accounts = accounts
        self._queue: Queue[Account | None] = Queue(AT_ONCE, WAITING, "logins")
        self._memory = Memory()
        self._lock = threading.Lock()
        self._under_way = 0
        self._counts = {"succeeded": 0, "failed": 0, "busy": 0}
        self._decoys: tuple[Roster | None, passwords.Decoys] = (None, passwords.Decoys(()))
        #: Nothing that is kept of a wrong password shall be of use to who reads the memory.
        self._key = secrets.token_bytes(32)
        self._minute = 0
        self._logged = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # which attempts came on last

    async def check(
        self,
        name: str,
        password: str,
        address: str,
        listener: str = "",
        session: str = "",
        port: int = 0,
    ) -> Account | None:
        """Verify a name and its password.

        Once it has begun, an attempt counts, whether its end is waited for or not.

        Args:
            name: an account's name, or one of its aliases.
            password: as the client gave it.
            address: the client's, empty where it has none.
            listener: where the client has come to, for the log.
            session: the name of its session, for the log.
            port: the client's, for the log.

        Returns:
            The account, or None if one of the two is wrong.

        Raises:
            LoginsBusyError: not now; nothing was verified.
        """
        self._loop = asyncio.get_running_loop()
        try:
            source = await self.penalties.enter(address)
            try:
                secret = passwords.prepared(password)
                known, account = await self._recall(name, secret)
                job = None
                if known is not Known.GOOD:
                    job = self._submit(self._rank(known, name, source), name, secret)
            except BaseException:
                self.penalties.leave(source, None)
                raise
            if job is None:
                self._succeeded(source)
                return account
            job.add_done_callback(
                partial(self._ended, name, password, (address, port, listener, session), source)
            )
            job.add_done_callback(self._counted)  # callbacks are called in order
            return await self._wait(job)
        except LoginsBusyError:
            with self._lock:
                self._counts["busy"] += 1
            raise

    def statistics(self) -> dict[str, int]:
        """Return how many attempts succeeded, failed, and were told to come again."""
        with self._lock:
            return self._counts.copy()

    def close(self) -> None:
        """End the threads; what waits for one is dropped. Blocks for a verification's time."""
        self._queue.close()
        self._tell_omitted()

    @staticmethod
    async def _wait(job: Future[Account | None]) -> Account | None:
        """Return what a job gives; one that `close` has dropped does not cancel who waits for it.

        Raises:
            LoginsBusyError: it has been dropped.
        """
        try:
            return await asyncio.wrap_future(job)
        except CrowdedError as error:
            raise LoginsBusyError(_CROWDED) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise LoginsBusyError("logins have ended") from None

    async def _recall(self, name: str, secret: bytes | None) -> tuple[Known, Account | None]:
        """Return what is known of a login, and whose it is. The work is the same for all names."""
        if not self._accounts.current():
            await asyncio.to_thread(self._accounts.reload)
        roster = self._accounts.roster
        account = None if roster is None else roster.login(name)
        if secret is None:
            return Known.NOTHING, None
        whose, phc = name, _NO_HASH
        if account is not None and account.password:
            whose, phc = account.name, account.password
        return self._memory.known(self._memory.login(whose, secret, phc)), account

    def _rank(self, known: Known, name: str, source: str) -> int:
        """Return what speaks against an attempt."""
        if known is Known.OLD:
            return -1  # nobody guesses that
        return self.penalties.suspicion(source) + self._memory.mistakes(_key(name))

    def _submit(self, rank: int, name: str, secret: bytes | None) -> Future[Account | None]:
        try:
            job = self._queue.submit(rank, partial(self._verify, name, secret))
        except CrowdedError as error:
            raise LoginsBusyError(_CROWDED) from error
        except RuntimeError as error:
            raise LoginsBusyError("logins have ended") from error
        with self._lock:
            self._under_way += 1
        return job

    # --- in the pool --------------------------------------------------------------------------

    def _verify(self, name: str, secret: bytes | None) -> Account | None:
        """Do the same work for everybody, and say who it is."""
        roster = self._accounts.reload()
        if roster is None:
            raise LoginsBusyError("the accounts cannot be read")
        account = roster.login(name)
        phc = self._decoys_of(roster).choose(_key(name))
        if account is not None and account.password:
            phc = account.password
        try:
            right = passwords.verify(phc, secret or b"")
        except passwords.CannotVerifyError as error:
            logger.error("%s", error)
            raise LoginsBusyError(str(error)) from error
        known = account is not None and account.password and secret is not None
        if right and known:
            assert account is not None
            assert secret is not None
            self._memory.remember(self._memory.login(account.name, secret, account.password))
            return account
        if not roster.certain:
            raise _UndecidedError("the accounts are being changed")
        return None

    def _decoys_of(self, roster: Roster) -> passwords.Decoys:
        of, decoys = self._decoys
        if of is not roster:
            decoys = passwords.Decoys(it.password for it in roster.accounts if it.password)
            self._decoys = (roster, decoys)
        return decoys

    def _ended(
        self,
        name: str,
        password: str,
        whence: tuple[str, int, str, str],
        source: str,
        job: Future[Account | None],
    ) -> None:
        """Count an attempt, on whatever thread it ends."""
        error = None if job.cancelled() else job.exception()
        undecided = isinstance(error, _UndecidedError)
        if job.cancelled() or (error is not None and not undecided):
            self.penalties.leave(source, None)
            return
        if error is None and job.result() is not None:
            self._succeeded(source)
            return
        self._memory.mistaken(_key(name))
        text = f"{name}\0{password}".encode("utf-8", "surrogatepass")
        self.penalties.leave(source, hashlib.blake2b(text, digest_size=16, key=self._key).digest())
        if not undecided:
            self._log(name, *whence)

    def _counted(self, job: Future[Account | None]) -> None:
        """Take an attempt for ended, once it has been counted."""
        with self._lock:
            self._under_way -= 1

    def _succeeded(self, source: str) -> None:
        self.penalties.leave(source, None)
        with self._lock:
            self._counts["succeeded"] += 1

    def _log(
        self, name: str, address: str, port: int = 0, listener: str = "", session: str = ""
    ) -> None:
        """Count and log a failure, or only count it when there are too many."""
        minute = int(time.monotonic() / _MINUTE)
        with self._lock:
            self._counts["failed"] += 1
            begins = minute != self._minute
        if begins:
            self._tell_omitted()
        with self._lock:
            if begins:
                self._minute, self._logged = minute, 0
            self._logged += 1
            number = self._logged
        if number <= LOGGED:
            shown = name if len(name) <= LOGGED_NAME else name[:LOGGED_NAME] + "..."
            # What the client says stands at the end: it must not pass for an address to ban.
            log(
                logger,
                logging.WARNING,
                "login-failed",
                "%s%s: authentication failed, user=%a",
                f"{listener}: " if listener else "",
                address_text(address, port),
                shown,
                listener=listener,
                peer=address,
                port=port,
                session=session,
                user=shown,
            )
        elif number == LOGGED + 1 and self._loop is not None:
            # There may be no other to tell of these.
            with contextlib.suppress(RuntimeError):  # the loop has ended; `close` tells
                self._loop.call_soon_threadsafe(self._tell_later)

    def _tell_later(self) -> None:
        asyncio.get_running_loop().call_later(_MINUTE, self._tell_omitted)

    def _tell_omitted(self) -> None:
        """Log how many failures have not been logged."""
        with self._lock:
            omitted = max(0, self._logged - LOGGED)
            self._logged -= omitted
        if omitted:
            text = "%d more failed logins are not shown"
            log(logger, logging.WARNING, "logins-omitted", text, omitted, count=omitted)


def _key(name: str) -> str:
    """Return what all spellings of an address have in common.

    An account is found under each of them; the work for a name without account must not differ
    between them either.
    """
    try:
        return parse_mailbox(name).canonical
    except AddressError:
        return name
