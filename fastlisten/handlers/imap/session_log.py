"""The log of a listener's IMAP sessions: logins and ends of sessions.

Rules of this file: what handlers/session_log.py does not have. Sessions that have logged in are
always logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastlisten.handlers.session_log import SessionContext, SessionLogBase
from fastlisten.log_events import log, shortened
from fastlisten.log_throttle import Throttle
from fastlisten.mail.counts import Counts

__all__ = ["SessionLog"]

logger = logging.getLogger("fastlisten.imap")


class SessionLog(SessionLogBase):
    """The log of one listener.

    Args:
        listener: its id.
        counts: the counters of its sessions.
    """

    def __init__(self, listener: str, counts: Counts) -> None:
        super().__init__(logger, listener, counts)
        self._ids = Throttle(self._ids_omitted)

    def close(self) -> None:
        """Log what was omitted."""
        super().close()
        self._ids.close()

    def logged_in(self, context: SessionContext, user: str, master: str = "") -> None:
        """Count and log a login that succeeded."""
        self.counts.login("succeeded")
        super().logged_in(context, user, master)

    def login_deferred(self, context: SessionContext, why: str) -> None:
        """Count and log that a password could not be verified."""
        self.counts.login("deferred")
        super().login_deferred(context, why)

    def client_id(self, context: SessionContext, fields: Mapping[str, str | None]) -> None:
        """Log what a client has said of itself (RFC 2971)."""
        if not fields or not logger.isEnabledFor(logging.INFO):
            return
        if context.user or self._ids.allows("client-id"):
            said = {name: shortened(value or "") for name, value in fields.items()}
            text = "%s: %s: ID sent: %s"
            shown = ", ".join(f"{name}={value}" for name, value in said.items())
            values = (context.listener, context.address, shown)
            more = {**context.fields, "user": context.user, "id": said}
            log(logger, logging.INFO, "client-id", text, *values, **more)

    def _ids_omitted(self, reason: str, count: int) -> None:
        text = "%s: %d more ID commands before login are not shown: %s"
        self._log_omitted("ids-omitted", text, reason, count)

    def ended(
        self, context: SessionContext, reason: str, duration: float, received: int, sent: int
    ) -> None:
        """Count and log the end of a session.

        Args:
            context: the session.
            reason: why it ended, one of a fixed set of words.
            duration: seconds.
            received: octets from the client, decrypted.
            sent: octets to the client, before encryption.
        """
        if not self.wants_end(reason, bool(context.user)):
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
