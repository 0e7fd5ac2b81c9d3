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
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.dsn.sender import DsnSender
from fastlisten.mail.relay.relay import Relay

__all__ = ["MailServices"]


class MailServices(Protocol):
    """Settings, log and mail delivery of one listener; the attributes are those of SmtpHandler."""

    settings: HandlerSettings
    counts: Counts
    session_log: SessionLog
    max_received: int
    logs_dialogue: bool
    sender_must_match: bool
    relay: Relay | None
    dsn_sender: DsnSender

    @property
    def per_recipient(self) -> bool:
        """Whether each recipient of a message gets a reply of its own (LMTP)."""

    @property
    def limits(self) -> Limits:
        """What the engine is told."""

    @property
    def office(self) -> PostOffice:
        """Where local mail is delivered."""

    def received(
        self, info: ConnectionInfo, engine: SmtpEngine, name: str, cipher: str = ""
    ) -> bytes:
        """Return the Received field of a message, as `TraceFields.received`."""
