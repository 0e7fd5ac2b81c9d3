"""Logins: verify names and passwords at a bounded cost, and reveal nothing by the time it takes.

Rules of this file: nothing is hashed on an event loop. A login attempt goes through, in this order:

    the penalty of its address    penalties.py: attempts wait, one at a time after failures
    the cache                     login_cache.py: a login that succeeded within the last hour
                                  succeeds again at once
    the queue of the process      verification_queue.py: at most WAITING attempts; the next is the
                                  one whose address and name have the fewest failures
    a thread                      at most AT_ONCE, each takes the memory of one hash (64 MiB); with
                                  several workers at most `shared_verifications` in all of them

The penalty comes before the cache, which would answer guesses at no cost. In the thread, every
attempt costs one verification with the same parameters, whatever is wrong: the name, the password,
its length, or that the account has no password (`passwords.Decoys`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import time
import unicodedata
from concurrent.futures import Future
from functools import partial

from fastlisten.log_events import address_text, log
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.logins.login_cache import CacheResult, LoginCache
from fastlisten.mail.logins.penalties import Entered, LoginPenalties, LoginsBusyError, Penalties
from fastlisten.mail.logins.verification_queue import (
    QueueFullError,
    SharedSlots,
    Slots,
    VerificationQueue,
)

__all__ = ["Logins", "LoginsBusyError", "share_logins", "shared_verifications"]

logger = logging.getLogger("fastlisten.mail")

#: Verifications at the same time. Each keeps a processor busy (or several: its lanes), and mail
#: needs processors too. See also `shared_verifications`.
AT_ONCE = 2

#: Verifications that wait for a thread, about a quarter of a minute's work. There has to be room
#: for the first guesses from a hundred addresses: nothing tells them from other people's first
#: logins.
WAITING = 256

_QUEUE_FULL = "too many logins are waiting"

#: Stands for the hash of a name that has none, so that looking it up costs the same.
_NO_HASH = "$" * 97

#: Failures that are logged in a minute. The others are only counted; the log tells their number at
#: the end of the minute.
LOGGED = 60

_MINUTE = 60.0

#: Characters of a name that are logged.
LOGGED_NAME = 80


class _UndecidedError(LoginsBusyError):
    """The login is wrong according to an accounts file that may be half written.

    It counts as a guess, but is not reported as a failure.
    """


_shared: LoginPenalties | None = None
_shared_cache: LoginCache | None = None
_shared_slots: SharedSlots | None = None


def share_logins(
    penalties: LoginPenalties | None,
    cache: LoginCache | None = None,
    slots: Slots | None = None,
    workers: int = 1,
) -> None:
    """Share with other workers what attempts that begin from now on wait for, and find out.

    Args:
        penalties: of all workers; None for those of each `Logins`.
        cache: knows what other workers have verified; None for that of each `Logins`.
        slots: `shared_verifications` of them; None to count each worker's for itself.
        workers: how many there are.
    """
    global _shared, _shared_cache, _shared_slots
    _shared, _shared_cache, _shared_slots = penalties, cache, None
    if slots is not None:
        # So many that the last one waits as long as in a single process.
        places = WAITING * shared_verifications(workers) // (AT_ONCE * workers)
        _shared_slots = SharedSlots(slots, places)


def shared_verifications(workers: int) -> int:
    """Return how many verifications may run at the same time in all workers: on half of the
    processors, if there is a worker for each.
    """
    return max(AT_ONCE, workers // 2)


class Logins:
    """Verifies logins; each post office has one.

    Attributes:
        available: passwords can be verified, because argon2-cffi is installed.
        penalties: how long each address has to wait, unless workers share that.
    """

    def __init__(self, accounts: Accounts, penalties: Penalties | None = None) -> None:
        self.available = passwords.available()
        self.penalties = Penalties() if penalties is None else penalties
        self._accounts = accounts
        self._queue: VerificationQueue[Account | None] = VerificationQueue(
            AT_ONCE, WAITING, "logins", lambda: _shared_slots
        )
        self._cache = LoginCache()
        self._lock = threading.Lock()
        self._decoys: tuple[Roster | None, passwords.Decoys] = (None, passwords.Decoys(()))
        self._minute = 0
        self._logged = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the latest attempt

    async def check(
        self,
        name: str,
        password: str,
        address: str,
        listener: str = "",
        session: str = "",
        port: int = 0,
        user: str = "",
    ) -> Account | None:
        """Verify a name and its password.

        An attempt that has begun counts, even if the caller is cancelled.

        Args:
            name: an account's name, or one of its aliases.
            password: as the client gave it.
            address: the client's; empty if it has none.
            listener: the listener's id, for the log.
            session: the session's name, for the log.
            port: the client's, for the log.
            user: another account, which this one is to act for, as a master; empty: none.

        Returns:
            The account, or None if the name or the password is wrong, or it is no master of `user`.

        Raises:
            LoginsBusyError: nothing could be verified now; the client may try again later.
        """
        self._loop = asyncio.get_running_loop()
        penalties: LoginPenalties = self.penalties if _shared is None else _shared
        entered = await penalties.enter(address, _name_digest(name, penalties.key))
        try:
            secret = passwords.prepared(password)
            cached, account = await self._look_up(name, secret)
            if cached is CacheResult.VALID and user:
                account = self._acting(account, user)
            if cached is CacheResult.VALID and account is not None:
                job = None
            else:
                job = self._submit(self._rank(cached, entered), name, secret, user)
        except BaseException:
            entered.leave(None)
            raise
        if job is None:
            entered.leave(None)
            return account
        # Equal for all workers that share a table, and useless to anyone who reads its memory.
        text = f"{name}\0{password}".encode("utf-8", "surrogatepass")
        mistake = hashlib.blake2b(text, digest_size=16, key=penalties.key).digest()
        job.add_done_callback(
            partial(
                self._ended,
                f"{user}*{name}" if user else name,
                mistake,
                (address, port, listener, session),
                entered,
            )
        )
        return await self._wait(job)

    def close(self) -> None:
        """Drop the attempts that wait, and end the threads. Blocks for the time of a hash."""
        self._queue.close()
        self._log_omitted()

    @property
    def _known(self) -> LoginCache:
        return self._cache if _shared_cache is None else _shared_cache

    @staticmethod
    async def _wait(job: Future[Account | None]) -> Account | None:
        """Return the result of a job.

        Raises:
            LoginsBusyError: another took its place in the queue, or `close` dropped it.
        """
        try:
            return await asyncio.wrap_future(job)
        except QueueFullError as error:
            raise LoginsBusyError(_QUEUE_FULL) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise LoginsBusyError("logins have ended") from None

    async def _look_up(self, name: str, secret: bytes | None) -> tuple[CacheResult, Account | None]:
        """Look a login up in the cache; return its account too. All names cost the same."""
        if not self._accounts.current():
            await asyncio.to_thread(self._accounts.reload)
        roster = self._accounts.roster
        account = None if roster is None else roster.login(name)
        if secret is None:
            return CacheResult.UNKNOWN, None
        whose, phc = name, _NO_HASH
        if account is not None and account.password:
            whose, phc = account.name, account.password
        cache = self._known
        return cache.look_up(cache.key(whose, secret, phc)), account

    @staticmethod
    def _rank(cached: CacheResult, entered: Entered) -> int:
        """Return how many failures speak against an attempt."""
        # One that was right once is no guess.
        return -1 if cached is CacheResult.EXPIRED else entered.failures()

    def _acting(self, login: Account | None, user: str) -> Account | None:
        """Return the account that a master acts for, None if they may not."""
        roster = self._accounts.roster
        return None if roster is None or login is None else roster.acting(login, user)

    def split(self, name: str) -> tuple[str, str]:
        """Return the name of the user and that of the master in ``user*master``.

        The first is empty if a name is an account's own, or nobody is a master.
        """
        roster = self._accounts.roster
        if "*" not in name or roster is None or not roster.has_masters or roster.login(name):
            return "", name
        user, _, master = name.rpartition("*")
        return (user, master) if user and master else ("", name)

    @property
    def has_masters(self) -> bool:
        """Whether an account is a master."""
        roster = self._accounts.roster
        return roster is not None and roster.has_masters

    def _submit(
        self, rank: int, name: str, secret: bytes | None, user: str
    ) -> Future[Account | None]:
        try:
            return self._queue.submit(rank, partial(self._verify, name, secret, user))
        except QueueFullError as error:
            raise LoginsBusyError(_QUEUE_FULL) from error
        except RuntimeError as error:
            raise LoginsBusyError("logins have ended") from error

    # --- in the pool --------------------------------------------------------------------------

    def _verify(self, name: str, secret: bytes | None, user: str = "") -> Account | None:
        """Return the account of a login, None if it is wrong, after the same work for all names."""
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
            cache = self._known
            cache.add(cache.key(account.name, secret, account.password))
            if user:
                account = roster.acting(account, user)
            if account is not None:
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
        mistake: bytes,
        origin: tuple[str, int, str, str],
        entered: Entered,
        job: Future[Account | None],
    ) -> None:
        """Count an attempt, on the thread on which it ends."""
        error = None if job.cancelled() else job.exception()
        undecided = isinstance(error, _UndecidedError)
        if job.cancelled() or (error is not None and not undecided):
            entered.leave(None)
            return
        if error is None and job.result() is not None:
            entered.leave(None)
            return
        entered.leave(mistake)
        if not undecided:
            self._log(name, *origin)

    def _log(
        self, name: str, address: str, port: int = 0, listener: str = "", session: str = ""
    ) -> None:
        """Log a failure, or only count it when there are too many."""
        minute = int(time.monotonic() / _MINUTE)
        with self._lock:
            begins = minute != self._minute
        if begins:
            self._log_omitted()
        with self._lock:
            if begins:
                self._minute, self._logged = minute, 0
            self._logged += 1
            number = self._logged
        if number <= LOGGED:
            shown = name if len(name) <= LOGGED_NAME else name[:LOGGED_NAME] + "..."
            # What the client says comes last, so that it cannot be taken for an address to ban.
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
            # There may be no later failure to report these.
            with contextlib.suppress(RuntimeError):  # the loop is closed; `close` reports them
                self._loop.call_soon_threadsafe(self._log_omitted_later)

    def _log_omitted_later(self) -> None:
        asyncio.get_running_loop().call_later(_MINUTE, self._log_omitted)

    def _log_omitted(self) -> None:
        """Log how many failures have not been logged."""
        with self._lock:
            omitted = max(0, self._logged - LOGGED)
            self._logged -= omitted
        if omitted:
            text = "%d more failed logins are not shown"
            log(logger, logging.WARNING, "logins-omitted", text, omitted, count=omitted)


def _name_digest(name: str, key: bytes) -> str:
    """Return what failures of a name are counted under."""
    text = unicodedata.normalize("NFC", _key(name)).casefold().encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, key=key, person=b"name").hexdigest()


def _key(name: str) -> str:
    """Return the one form of all spellings of an address.

    An account is found by each of them, so the work for a name without an account must not differ
    between them either.
    """
    try:
        return parse_mailbox(name).canonical
    except AddressError:
        return name
