"""The log of a listener's sessions: rejections, logins, ends of sessions, and omitted records.

Rules of this file: texts, fields and bounds; engine_protocol.py and its subclasses decide when
something is logged. Whatever a client can cause without end is bounded per listener and kind.
Messages and logins have no bound here: they cost the client more than us.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastlisten.handlers.smtp.engine.smtp_events import Recipient, Refusal
from fastlisten.handlers.smtp.engine.verbs import verb_shown
from fastlisten.log_events import address_text, log, shortened
from fastlisten.log_throttle import Throttle
from fastlisten.mail.counts import Counts

__all__ = ["LogContext", "SessionLog"]

logger = logging.getLogger("fastlisten.smtp")

#: The number of recipients that a line names; the others are counted.
_RECIPIENTS = 5


# Not frozen, because that would take four times as long, for each session.
@dataclass(slots=True)
class LogContext:
    """The session that a record is about, as far as it is known; do not change it.

    Attributes:
        listener: id of the listener.
        peer: the client's address, empty on a Unix socket.
        port: its port.
        session: its name, empty before there is one.
        helo: the name that the client gave in HELO, EHLO or LHLO.
        tls: version of TLS, empty without TLS.
        protocol: SMTP, ESMTP or LMTP.
        user: the user that has logged in, empty if none has.
    """

    listener: str
    peer: str
    port: int
    session: str = ""
    helo: str = ""
    tls: str = ""
    protocol: str = "SMTP"
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
        self._refusals = Throttle(self._refusals_omitted)
        self._sessions = Throttle(self._sessions_omitted)
        self._handshakes = Throttle(self._refusals_omitted)

    def close(self) -> None:
        """Log what was omitted."""
        for one in (self._refusals, self._sessions, self._handshakes):
            one.close()

    # --- refusals -----------------------------------------------------------------------------

    def wants(self, reason: str) -> bool:
        """Return whether to log one more rejection; if not, it is counted."""
        return logger.isEnabledFor(logging.INFO) and self._refusals.allows(reason)

    def refused(self, context: LogContext, refusal: Refusal) -> None:
        """Log a rejection that `wants` allowed, in the form that Postfix uses."""
        reply = _text_of(refusal.reply)
        sender, to = refusal.sender, [shortened(str(each.mailbox)) for each in _some(refusal)]
        more = len(refusal.recipients) - len(to)
        text = "%s: NOQUEUE: reject: %s from %s: %s;"
        values: list[object] = [context.listener, verb_shown(refusal.verb), context.address, reply]
        if sender is not None:
            text += " from=<%s>"
            values.append(shortened(sender))
        for each in to:
            text += " to=<%s>"
            values.append(each)
        if more:
            text += " (and %d more)"
            values.append(more)
        text += " proto=%s helo=<%s>"
        values += (context.protocol, context.helo)
        if context.tls:
            text += " tls=%s"
            values.append(context.tls)
        if context.user:
            text += " user=<%s>"
            values.append(context.user)
        log(
            logger,
            logging.INFO,
            "rejected",
            text,
            *values,
            **context.fields,
            helo=context.helo,
            tls=context.tls,
            protocol=context.protocol,
            user=context.user,
            command=verb_shown(refusal.verb),
            from_=None if sender is None else shortened(sender),
            to=to,
            reply=reply,
            reason=refusal.reason,
        )

    def _refusals_omitted(self, reason: str, count: int) -> None:
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

    def tls_failed(self, context: LogContext, why: str) -> None:
        """Log a handshake after STARTTLS that failed."""
        if logger.isEnabledFor(logging.INFO) and self._handshakes.allows("tls-failed"):
            text = "%s: TLS handshake with %s failed: %s"
            why = shortened(why)
            values = (context.listener, context.address, why)
            log(logger, logging.INFO, "tls-failed", text, *values, **context.fields, error=why)

    # --- logins -------------------------------------------------------------------------------

    def logged_in(self, context: LogContext, user: str) -> None:
        """Log a login that succeeded."""
        text = "%s: %s: logged in as %s"
        values = (context.listener, context.address, user)
        log(logger, logging.INFO, "login-succeeded", text, *values, **context.fields, user=user)

    def login_deferred(self, context: LogContext, why: str) -> None:
        """Log that a password could not be verified; mail/logins logs wrong passwords."""
        text = "%s: %s: login deferred: %s"
        values = (context.listener, context.address, why)
        log(logger, logging.WARNING, "login-deferred", text, *values, **context.fields, error=why)

    # --- ends ---------------------------------------------------------------------------------

    def wants_end(self, reason: str, useful: bool = False) -> bool:
        """Count the end of a session; return whether to log it.

        Args:
            reason: why it ended, one of a fixed set of words.
            useful: it brought a message or a login. The others may be scanners, of which there
                is an endless number, so only a limited number of them is logged.
        """
        self.counts.ended(reason)
        if not logger.isEnabledFor(logging.INFO):
            return False
        return useful or self._sessions.allows(reason)

    def ended(
        self,
        context: LogContext,
        reason: str,
        duration: float,
        received: int,
        sent: int,
        messages: int,
        rejected: int,
    ) -> None:
        """Log the end of a session that `wants_end` allowed.

        Args:
            context: the session.
            reason: why it ended.
            duration: seconds.
            received: octets from the client, decrypted.
            sent: octets to the client, before encryption.
            messages: accepted messages.
            rejected: negative replies.
        """
        log(
            logger,
            logging.INFO,
            "session-ended",
            "%s: %s ended: %s; %.3f s, %d octets in, %d out, %d messages, %d rejected, helo=<%s>",
            context.listener,
            context.address,
            reason,
            duration,
            received,
            sent,
            messages,
            rejected,
            context.helo,
            **context.fields,
            helo=context.helo,
            tls=context.tls,
            user=context.user,
            duration=round(duration, 3),
            bytes_received=received,
            bytes_sent=sent,
            messages=messages,
            rejected=rejected,
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


def _some(refusal: Refusal) -> tuple[Recipient, ...]:
    return refusal.recipients[:_RECIPIENTS]


def _text_of(reply: bytes) -> str:
    """Return a reply as one line; if LMTP gave one for each recipient, the first."""
    words: list[str] = []
    for line in reply.decode("utf-8", "backslashreplace").split("\r\n"):
        words.append(line[4:] if words else line)
        if line[3:4] != "-":
            break
    return shortened(" ".join(words).replace("-", " ", 1) if len(words) > 1 else words[0])
