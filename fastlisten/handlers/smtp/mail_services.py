"""What the connections of a listener share, as they see it.

Rules of this file: a type and nothing else. SmtpHandler (handler.py) is what implements it; it is
declared here because handler.py imports the connections.
"""

from __future__ import annotations

from typing import Protocol

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery_interface import Delivery, LoggingOwner
from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import Envelope

__all__ = ["MailServices"]


class MailServices(Protocol):
    """Settings, log and mail delivery of one listener; the attributes are those of SmtpHandler."""

    settings: HandlerSettings
    session_log: SessionLog
    max_received: int
    logs_dialogue: bool
    sender_must_match: bool

    @property
    def limits(self) -> Limits:
        """The engine's settings."""

    @property
    def office(self) -> PostOffice:
        """Whose accounts and logins are used."""

    def begin(
        self, envelope: Envelope, owner: LoggingOwner, info: ConnectionInfo, login: Account | None
    ) -> Delivery:
        """Begin the delivery of a message; as `SmtpHandler.begin`."""

    def send_dsn(
        self, envelope: Envelope, outcome: Outcome, header: bytes, authenticated: bool
    ) -> None:
        """Send a DSN of success; as `DsnSender.send`."""

    def received(
        self, info: ConnectionInfo, engine: SmtpEngine, name: str, cipher: str = ""
    ) -> bytes:
        """Return the Received field of a message, as `TraceFields.received`."""
