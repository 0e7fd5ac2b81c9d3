"""The imap handler: what all connections of a listener share.

Rules of this file: the bytes that the native core sends (greeting, refusals, farewells), the
engine's limits, and whose mail is read where. What happens on a connection is in
engine_protocol.py and session.py.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason, SettingError
from fastlisten.handlers.imap.capabilities import before_login
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.engine import Limits
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.engine_protocol import EngineProtocol
from fastlisten.handlers.imap.idle_sessions import IdleSessions
from fastlisten.handlers.imap.session import Session
from fastlisten.handlers.imap.session_log import SessionLog
from fastlisten.handlers.imap.session_rules import SessionRules, engine_limits, session_rules
from fastlisten.handlers.imap.settings import IMAP
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.quota import Quota
from fastlisten.mail.accounts.roster import Account as Login
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.logins.logins import Logins
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.autoexpunge import EVERY
from fastlisten.mail.store.bounds import Bounds
from fastlisten.mail.store.interface import Account, StoreError
from fastlisten.mail.store.open_accounts import OpenAccounts
from fastlisten.mail.store.special_folders import ROLES
from fastlisten.mail.user_sessions import user_sessions

__all__ = ["ImapHandler"]

logger = logging.getLogger("fastlisten.imap")


class _QuotaOf:
    """Returns how much mail an account may have; a closure would have five times its size."""

    __slots__ = ("_login", "_office")

    def __init__(self, office: PostOffice, login: Login) -> None:
        self._office = office
        self._login = login

    def __call__(self) -> Quota:
        return self._office.quota_of(self._login)


class ImapHandler(Handler):
    """IMAP for one listener (RFC 3501); implements `Services`.

    A subclass that overrides `open_account` and `close_account` serves mail from another store.

    Attributes:
        counts: the counters of the listener's sessions.
        session_log: their log.
        idling: those in IDLE.

    Raises:
        SettingError: passwords cannot be verified, because a package is missing.
    """

    name: ClassVar[str] = IMAP.name
    default_port: ClassVar[int] = IMAP.port
    default_tls_port: ClassVar[int] = IMAP.tls_port
    server_speaks_first: ClassVar[bool] = IMAP.server_speaks_first
    starttls: ClassVar[bool] = bool(IMAP.starttls)
    lazy: ClassVar[bool] = True
    options = IMAP.options

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        if not passwords.available():
            message = (
                "users cannot log in without the package argon2-cffi: "
                'pip install "fastlisten[auth]"'
            )
            raise SettingError("protocol", message)
        self.counts: Counts = settings.kept.setdefault("counts", Counts())
        self.session_log = SessionLog(settings.listener, self.counts)
        self.idling = IdleSessions(
            lambda loop, then: self.office.refresh(loop, then), lambda: self.office.accounts.roster
        )
        self._office: PostOffice | None = None
        self._accounts: OpenAccounts | None = None
        self._special_folders = {
            role: name
            for role in ROLES
            if (name := self.settings.options[f"folders.{role.lower()}"]) is not None
        }
        options = self.settings.options
        self._bounds = Bounds(
            options["max-folders"], options["max-name-depth"], options["max-keywords"]
        )
        self._ages = {
            role: age
            for role in ("Trash", "Junk")
            if (age := self.settings.options[f"autoexpunge.{role.lower()}"]) is not None
        }
        self._looked_after: dict[str, float] = {}  # when, by account
        self._stopping = False
        self._unfinished: set[asyncio.Task[None]] = set()

    # --- what the native core sends -----------------------------------------------------------

    @property
    def greeting(self) -> bytes:  # type: ignore[override]
        """The greeting, with what a client can do before login."""
        settings, limits = self.settings, self.limits
        names = self.rules.announced(
            before_login(
                limits.mechanisms, encrypted=settings.tls_implicit, starttls=limits.starttls
            )
        )
        text = f"{settings.hostname} {settings.greeting or 'ready.'}"
        return status(b"*", b"OK", text, codes.capability(names))

    def refusal(self, reason: Reason) -> bytes:
        """Return what a rejected client is told (RFC 3501 7.1.5, RFC 5530)."""
        code, text = {
            Reason.LIMIT: (codes.UNAVAILABLE, "Too many connections; try again later"),
            Reason.OVERLOAD: (codes.UNAVAILABLE, "Server busy; try again later"),
            Reason.RATE: (
                codes.LIMIT,
                "Too many connections from your address; try again later",
            ),
            Reason.ADDRESS: (codes.LIMIT, "Too many connections from your address"),
            Reason.DENIED: (codes.NOPERM, "Client host rejected: Access denied"),
        }.get(reason, (codes.UNAVAILABLE, "Try again later"))
        return status(b"*", b"BYE", text, code)

    def farewell(self, reason: Reason) -> bytes:
        """Return that with which the server ends a session."""
        if reason in (Reason.IDLE, Reason.FIRST_BYTE):
            return status(b"*", b"BYE", "Disconnected for inactivity.")
        return status(b"*", b"BYE", "Server shutting down.", codes.UNAVAILABLE)

    def notes(self) -> tuple[str, ...]:
        """Return why nobody can log in yet, if that is so."""
        accounts = self.office.accounts
        if accounts.roster is None:
            if not os.path.exists(accounts.path):
                command = "`fastlisten account add NAME --config FILE`"
                why = f"nobody can log in until {command} has created an account"
                return (f"{accounts.path} does not exist: {why}",)
            return (f"{accounts.path} cannot be read: nobody can log in until this is fixed",)
        if not any(account.password for account in accounts.roster.accounts):
            return (f"{accounts.path} has no account with a password: nobody can log in",)
        return ()

    # --- connections --------------------------------------------------------------------------

    @functools.cached_property
    def limits(self) -> Limits:
        """The settings of every connection's engine; made for the first connection."""
        settings = self.settings
        starttls = settings.tls is not None and not settings.tls_implicit
        return engine_limits(settings.options, starttls)

    @functools.cached_property
    def rules(self) -> SessionRules:
        """What holds for every session; made for the greeting."""
        return session_rules(self.settings.options)

    def connection(self, info: ConnectionInfo) -> EngineProtocol:
        """Return the protocol object for one connection."""
        return EngineProtocol(Session(self, info))

    @property
    def office(self) -> PostOffice:
        """Who has mail here.

        Raises:
            RuntimeError: the handler has not been started.
        """
        if self._office is None:
            raise RuntimeError("the handler has not been started")
        return self._office

    @property
    def logins(self) -> Logins:
        """Verify passwords."""
        return self.office.logins

    def admits(self, login: Login) -> bool:
        """Return whether a user who has logged in could still do so; True if nobody knows."""
        roster = self.office.accounts.roster
        return roster is None or roster.admits(login)

    def admit_session(self, login: Login, peer: str) -> str:
        """Count a session of an account; return which limit refuses it, empty if none does."""
        counted: list[str] = []
        for whose, most, text in self._sessions_of(login, peer):
            if not user_sessions().take(whose, most):
                for other in counted:
                    user_sessions().give(other)
                return text
            counted.append(whose)
        return ""

    def end_session(self, login: Login, peer: str) -> None:
        """Count one less."""
        for whose, _, _ in self._sessions_of(login, peer):
            user_sessions().give(whose)

    def _sessions_of(self, login: Login, peer: str) -> Iterator[tuple[str, int, str]]:
        """Yield what a session is counted by: the name, the limit, and the text of a refusal."""
        rules = self.rules
        if rules.sessions_per_user and peer:
            most = rules.sessions_per_user
            text = f"user+IP exceeded (imap.sessions-per-user={most})"
            yield f"imap {login.name} {peer}", most, text
        if rules.sessions_per_account:
            most = rules.sessions_per_account
            text = f"user exceeded (imap.sessions-per-account={most})"
            yield f"imap {login.name}", most, text

    def open_account(self, login: Login) -> Account:
        """Return the mail of an account, for one session."""
        account = self._acquire(login)
        now = time.monotonic()
        if self._ages and now - self._looked_after.get(login.name, -EVERY) >= EVERY:
            self._looked_after[login.name] = now
            self.run_to_its_end(self._autoexpunge(login))
        return account

    def _acquire(self, login: Login) -> MaildirAccount:
        assert self._accounts is not None
        office = self.office
        return self._accounts.acquire(
            office.maildir(login).path,
            _QuotaOf(office, login),
            self._special_folders,
            self._bounds,
        )

    async def _autoexpunge(self, login: Login) -> None:
        """Remove what is old, beside what the session does."""
        account = self._acquire(login)
        try:
            await account.autoexpunge(self._ages, lambda: not self._stopping)
        except StoreError as error:
            # Why, the store has logged; the next login tries again.
            self._looked_after.pop(login.name, None)
            logger.warning("autoexpunge of %s: %s", login.name, error)
        finally:
            assert self._accounts is not None
            self._accounts.release(self.office.maildir(login).path)

    def close_account(self, login: Login) -> None:
        """End the use by one session."""
        assert self._accounts is not None
        self._accounts.release(self.office.maildir(login).path)

    def run_to_its_end(self, work: Coroutine[Any, Any, None] | asyncio.Task[None]) -> None:
        """Run something that has to be done though the client has gone."""
        task = work
        if not isinstance(task, asyncio.Task):
            task = asyncio.get_running_loop().create_task(task)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)

    # --- start and stop -----------------------------------------------------------------------

    async def start(self) -> None:
        """Open the post office and read the accounts.

        Raises:
            ValueError: there is no data directory to read from.
        """
        if not self.settings.data_directory:
            raise ValueError(f"the {self.name} handler needs a data directory")
        office = PostOffice.enter(
            self.settings.data_directory, self.settings.extra.get("accounts", "")
        )
        self._office = office
        office.quota = self.settings.extra.get("quota", office.quota)
        try:
            self._accounts = OpenAccounts.enter(str(office.mail))
            if not office.accounts.current():
                await asyncio.to_thread(office.accounts.reload)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close what is open when all sessions have ended."""
        self._stopping = True
        self.session_log.close()
        self.idling.close()
        while self._unfinished:
            await asyncio.wait(self._unfinished)
        accounts, self._accounts = self._accounts, None
        if accounts is not None:
            await accounts.leave()
        office, self._office = self._office, None
        if office is not None:
            await asyncio.to_thread(office.leave)
