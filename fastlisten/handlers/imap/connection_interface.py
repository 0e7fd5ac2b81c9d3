"""What a session's parts need from each other: the connection, and what a listener's share.

Rules of this file: shapes, no behaviour. EngineProtocol (engine_protocol.py) is a `Connection`,
ImapHandler (handler.py) provides `Services`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.idle_sessions import IdleSessions
from fastlisten.handlers.imap.session_log import SessionLog
from fastlisten.handlers.imap.session_rules import SessionRules
from fastlisten.handlers.session_log import SessionContext
from fastlisten.mail.accounts.roster import Account as Login
from fastlisten.mail.logins.logins import Logins
from fastlisten.mail.store.interface import Account

__all__ = ["Connection", "Services"]


class Connection(Protocol):
    """The connection, as the session sees it.

    Attributes:
        engine: the IMAP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
    """

    engine: ImapEngine
    session: int
    end_reason: str

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None when the connection is lost."""

    @property
    def write_paused(self) -> bool:
        """Whether the client does not read what it is sent."""

    def write(self) -> None:
        """Write the engine's output."""

    async def flush(self) -> None:
        """Write the engine's output; wait until the client has read enough, and let others work.

        Raises:
            ClientGoneError: the connection is lost.
        """

    def is_due(self, octets: int) -> bool:
        """Count octets that the engine has been given; return whether it is time for `flush`."""

    def resume(self) -> None:
        """Go on after something that the session waited for."""

    @property
    def idle_time(self) -> float:
        """Seconds that the client may be silent before `Session.idle_expired` is called, 0 for any
        time; set it to 0 for those of the listener."""

    @idle_time.setter
    def idle_time(self, seconds: float) -> None: ...

    def abort(self, reason: str) -> None:
        """Close the connection at once."""

    def log_context(self) -> SessionContext:
        """Return what a log record says of the session."""

    def log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""


class Services(Protocol):
    """What the sessions of a listener share."""

    settings: HandlerSettings
    session_log: SessionLog
    idling: IdleSessions

    @property
    def limits(self) -> Limits:
        """The engine's settings."""

    @property
    def rules(self) -> SessionRules:
        """What holds for every session."""

    @property
    def logins(self) -> Logins:
        """Verify passwords."""

    def admits(self, login: Login) -> bool:
        """Return whether a user who has logged in could still do so."""

    def admit_session(self, login: Login, peer: str) -> str:
        """Count a session of an account; return which limit refuses it, empty if none does.

        Args:
            login: the account.
            peer: the client's address, empty on a Unix socket.
        """

    def end_session(self, login: Login, peer: str) -> None:
        """Count one less."""

    def open_account(self, login: Login) -> Account:
        """Return the mail of an account, for one session."""

    def close_account(self, login: Login) -> None:
        """End the use by one session."""

    def run_to_its_end(self, work: Coroutine[Any, Any, None] | asyncio.Task[None]) -> None:
        """Run something that has to be done though the client has gone."""
