"""The log of sessions of mail, as far as it is the same for smtp, lmtp and imap.

Rules of this file: texts, fields and bounds; nothing of a protocol. Whatever a client can cause
without end is bounded per listener and kind. Wrong passwords are logged by mail/logins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastlisten.log_events import address_text, log, shortened
from fastlisten.log_throttle import Throttle
from fastlisten.mail.counts import Counts

__all__ = ["SessionContext", "SessionLogBase"]


# Not frozen, because that would take four times as long, for each session.
@dataclass(slots=True)
class SessionContext:
    """The session that a record is about, as far as it is known; do not change it.

    Attributes:
        listener: id of the listener.
        peer: the client's address, empty on a Unix socket.
        port: its port.
        session: its name, empty before there is one.
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


class SessionLogBase:
    """The log of one listener.

    Args:
        logger: of the protocol.
        listener: its id.
        counts: the counters of its sessions.
    """

    def __init__(self, logger: logging.Logger, listener: str, counts: Counts) -> None:
        self.listener = listener
        self.counts = counts
        self._logger = logger
        self._sessions = Throttle(self._sessions_omitted)
        self._handshakes = Throttle(self._rejections_omitted)

    def close(self) -> None:
        """Log what was omitted."""
        self._sessions.close()
        self._handshakes.close()

    def tls_failed(self, context: SessionContext, why: str) -> None:
        """Log a handshake after STARTTLS that failed."""
        logger = self._logger
        if logger.isEnabledFor(logging.INFO) and self._handshakes.allows("tls-failed"):
            text = "%s: TLS handshake with %s failed: %s"
            why = shortened(why)
            values = (context.listener, context.address, why)
            log(logger, logging.INFO, "tls-failed", text, *values, **context.fields, error=why)

    def logged_in(self, context: SessionContext, user: str, master: str = "") -> None:
        """Log a login that succeeded; `master` is who has logged in, if not the user."""
        text = "%s: %s: logged in as %s"
        values = (context.listener, context.address, f"{user}*{master}" if master else user)
        fields = {**context.fields, "user": user}
        if master:
            fields["master"] = master
        log(self._logger, logging.INFO, "login-succeeded", text, *values, **fields)

    def login_deferred(self, context: SessionContext, why: str) -> None:
        """Log that a password could not be verified."""
        text = "%s: %s: login deferred: %s"
        values = (context.listener, context.address, why)
        fields = context.fields
        log(self._logger, logging.WARNING, "login-deferred", text, *values, **fields, error=why)

    def wants_end(self, reason: str, useful: bool = False) -> bool:
        """Count the end of a session; return whether to log it.

        Args:
            reason: why it ended, one of a fixed set of words.
            useful: it brought a message or a login. The others may be scanners, of which there
                is an endless number, so only a limited number of them is logged.
        """
        self.counts.ended(reason)
        if not self._logger.isEnabledFor(logging.INFO):
            return False
        return useful or self._sessions.allows(reason)

    def _sessions_omitted(self, reason: str, count: int) -> None:
        self._log_omitted(
            "sessions-omitted", "%s: %d more ended sessions are not shown: %s", reason, count
        )

    def _rejections_omitted(self, reason: str, count: int) -> None:
        self._log_omitted(
            "rejections-omitted", "%s: %d more rejections are not shown: %s", reason, count
        )

    def _log_omitted(self, event: str, text: str, reason: str, count: int) -> None:
        listener = self.listener
        fields: dict[str, object] = {"listener": listener, "reason": reason, "count": count}
        log(self._logger, logging.INFO, event, text, listener, count, reason, **fields)
