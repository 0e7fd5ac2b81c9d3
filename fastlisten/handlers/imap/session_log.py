"""The log of a listener's IMAP sessions: logins and ends of sessions.

Rules of this file: texts, fields and bounds. Whatever a client can cause without end is bounded
per listener and kind; sessions that have logged in are always logged. Wrong passwords are logged
by mail/logins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastlisten.log_events import address_text, log, shortened
from fastlisten.log_throttle import Throttle
from fastlisten.mail.counts import Counts

__all__ = ["LogContext", "SessionLog"]

logger = logging.getLogger("fastlisten.imap")


@dataclass(slots=True)
class LogContext:
    """The session that a record is about; do not change it.

    Attributes:
        listener: id of the listener.
        peer: the client's address, empty on a Unix socket.
        port: its port.
        session: its name.
        tls: version of TLS, empty without TLS.
        user: the account that the client has logged in to, empty if none.
    """

    listener: str
    peer: str
    port: int
    session: str = ""
    tls: str = ""
    user: str = ""

    @property
    def fields(self) -> dict[str, object]:
        """The fields that all records of a session have."""
        return {
            "listener": self.listener,
            "peer": self.peer,
            "port": self.port,
            "session": self.session,
        }

    @property
    def address(self) -> str:
        """The client's address and port, for the text of a record."""
        return address_text(self.peer, self.port)


class SessionLog:
    """The log of one listener.

    Args:
        listener: its id.
        counts: the counters of its sessions.
    """

    def __init__(self, listener: str, counts: Counts) -> None:
        self.listener = listener
        self.counts = counts
        self._sessions = Throttle(self._sessions_omitted)
        self._handshakes = Throttle(self._handshakes_omitted)

    def close(self) -> None:
        """Log what was omitted."""
        self._sessions.close()
        self._handshakes.close()

    def logged_in(self, context: LogContext, user: str) -> None:
        """Log a login that succeeded."""
        self.counts.login("succeeded")
        text = "%s: %s: logged in as %s"
        values = (context.listener, context.address, user)
        log(logger, logging.INFO, "login-succeeded", text, *values, **context.fields, user=user)

    def login_deferred(self, context: LogContext, why: str) -> None:
        """Log that a password could not be verified."""
        self.counts.login("deferred")
        text = "%s: %s: login deferred: %s"
        values = (context.listener, context.address, why)
        log(logger, logging.WARNING, "login-deferred", text, *values, **context.fields, error=why)

    def tls_failed(self, context: LogContext, why: str) -> None:
        """Log a handshake after STARTTLS that failed."""
        if logger.isEnabledFor(logging.INFO) and self._handshakes.allows("tls-failed"):
            text = "%s: TLS handshake with %s failed: %s"
            why = shortened(why)
            values = (context.listener, context.address, why)
            log(logger, logging.INFO, "tls-failed", text, *values, **context.fields, error=why)

    def ended(
        self, context: LogContext, reason: str, duration: float, received: int, sent: int
    ) -> None:
        """Count and log the end of a session.

        Args:
            context: the session.
            reason: why it ended, one of a fixed set of words.
            duration: seconds.
            received: octets from the client, decrypted.
            sent: octets to the client, before encryption.
        """
        self.counts.ended(reason)
        if not logger.isEnabledFor(logging.INFO):
            return
        if not (context.user or self._sessions.allows(reason)):
            return
        log(
            logger,
            logging.INFO,
            "session-ended",
            "%s: %s ended: %s; %.3f s, %d octets in, %d out, user=<%s>",
            context.listener,
            context.address,
            reason,
            duration,
            received,
            sent,
            context.user,
            **context.fields,
            tls=context.tls,
            user=context.user,
            duration=round(duration, 3),
            bytes_received=received,
            bytes_sent=sent,
            reason=reason,
        )

    def _sessions_omitted(self, reason: str, count: int) -> None:
        log(
            logger,
            logging.INFO,
            "sessions-omitted",
            "%s: %d more ended sessions are not shown: %s",
            self.listener,
            count,
            reason,
            listener=self.listener,
            reason=reason,
            count=count,
        )

    def _handshakes_omitted(self, reason: str, count: int) -> None:
        log(
            logger,
            logging.INFO,
            "rejections-omitted",
            "%s: %d more rejections are not shown: %s",
            self.listener,
            count,
            reason,
            listener=self.listener,
            reason=reason,
            count=count,
        )
