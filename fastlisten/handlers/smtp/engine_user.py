"""The two sides of a connection: the one with the transport, and the one that answers events.

Rules of this file: shapes, no behaviour. EngineProtocol (engine_protocol.py) is an
`EngineConnection`: octets, flow control, TLS. MailSession (mail_session.py) and AiosmtpdSession
(aiosmtpd/aiosmtpd_session.py) are each an `EngineUser`, and know of the connection what is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.smtp_events import Event
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["EngineConnection", "EngineUser"]


class EngineConnection(Protocol):
    """The connection, as the engine's user sees it.

    Attributes:
        engine: the SMTP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
    """

    engine: SmtpEngine
    session: int
    end_reason: str

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None when the connection is lost."""

    @property
    def write_paused(self) -> bool:
        """Whether the client does not read its replies."""

    def run(self) -> None:
        """Execute what can be executed now, and write the replies."""

    def run_later(self) -> None:
        """Continue in the next iteration of the loop."""

    def resume(self, step: Callable[[], None] | None = None) -> None:
        """Continue after an asynchronous step has ended, if the client is still connected."""

    def write(self, more: bytes = b"") -> None:
        """Write the engine's replies, and then what is given."""

    def note_tls(self) -> None:
        """Note the TLS version for the log."""

    def log_context(self) -> LogContext:
        """Return what a log record says of the session."""

    def log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""


class EngineUser(Protocol):
    """Handles the engine's events for one connection.

    Attributes:
        engine: the SMTP session.
    """

    engine: SmtpEngine

    @property
    def session_log(self) -> SessionLog:
        """The log of the listener."""

    @property
    def tls(self) -> TlsSettings | None:
        """How to start TLS, None where that is not possible."""

    @property
    def user_name(self) -> str:
        """The name of the user that has logged in, empty if none has."""

    @property
    def waits(self) -> bool:
        """Whether the client waits for the user, not for the transport."""

    @property
    def busy(self) -> bool:
        """Whether a drain must wait, TLS that is starting aside."""

    def held_up(self) -> bool:
        """Return whether nothing may be executed for now; `EngineConnection.resume` ends that."""

    def origin(self) -> tuple[str, str, int]:
        """Return the listener's id, the client's address and its port, for the log."""

    def connected(self, connection: EngineConnection) -> None:
        """Begin: the client has been greeted."""

    def handle(self, event: Event) -> None:
        """Handle an event other than Flush, Goodbye and StartTls."""

    def write_resumed(self) -> None:
        """Continue, because the client reads its replies again."""

    def admits_tls(self) -> bool:
        """Return whether STARTTLS may proceed; if not, it has been refused."""

    def forget_session(self) -> None:
        """Forget everything that the client has sent (RFC 3207 4.2), because TLS begins."""

    def tls_begun(self) -> None:
        """Go on over TLS."""

    def farewell_said(self) -> None:
        """Drop whatever is in progress: the session has ended."""

    def disconnected(self) -> None:
        """Drop everything, the connection too: it is lost."""
