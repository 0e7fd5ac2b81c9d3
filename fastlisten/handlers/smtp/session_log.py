"""What the log says of a listener's sessions: refusals, ends, logins, and what was left out.

Rules of this file: words, fields and bounds; engine_protocol.py and its subclasses decide when
something is logged. Whatever a client can cause without end has a bound per listener and kind.
Messages and logins have none here: they cost the client more than us.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastlisten.handlers.smtp.engine.counts import Counts
from fastlisten.handlers.smtp.engine.events import Recipient, Refusal
from fastlisten.handlers.smtp.engine.verbs import verb_shown
from fastlisten.log_events import Throttle, address_text, log, shown

__all__ = ["LogContext", "SessionLog"]

logger = logging.getLogger("fastlisten.smtp")

#: Recipients that a line shows; of the others their number.
_RECIPIENTS = 5


@dataclass(frozen=True, slots=True)
class LogContext:
    """Whom a record is about, as far as it is known.

    Attributes:
        listener: id of the listener.
        peer: the client's address, empty on a Unix socket.
        port: its port.
        session: name of the session, empty before there is one.
        helo: what the client calls itself.
        tls: version of TLS, empty without.
        protocol: SMTP, ESMTP or LMTP.
        user: who has logged in.
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
        """What all records of a session have in common."""
        return {
            "listener": self.listener,
            "peer": self.peer,
            "port": self.port,
            "session": self.session,
        }

    @property
    def address(self) -> str:
        """The client's address and port, for a person."""
        return address_text(self.peer, self.port)


class SessionLog:
    """The log of one listener.

    Args:
        listener: its id.
        counts: what its sessions count.
    """

    def __init__(self, listener: str, counts: Counts) -> None:
        self.listener = listener
        self.counts = counts
        self._refusals = Throttle(self._refusals_omitted)
        self._sessions = Throttle(self._sessions_omitted)
        self._handshakes = Throttle(self._refusals_omitted)

    def close(self) -> None:
        """Tell what was left out."""
        for one in (self._refusals, self._sessions, self._handshakes):
            one.close()

    # --- refusals -----------------------------------------------------------------------------

    def wants(self, reason: str) -> bool:
        """Whether one more refusal is to be logged; it is counted if not."""
        return logger.isEnabledFor(logging.INFO) and self._refusals.allows(reason)

    def refused(self, who: LogContext, refusal: Refusal) -> None:
        """Log a refusal that is wanted, in the manner of Postfix."""
        reply = _text_of(refusal.reply)
        sender, to = refusal.sender, [shown(str(each.mailbox)) for each in _some(refusal)]
        more = len(refusal.recipients) - len(to)
        text = "%s: NOQUEUE: reject: %s from %s: %s;"
        values: list[object] = [who.listener, verb_shown(refusal.verb), who.address, reply]
        if sender is not None:
            text += " from=<%s>"
            values.append(shown(sender))
        for each in to:
            text += " to=<%s>"
            values.append(each)
        if more:
            text += " (and %d more)"
            values.append(more)
        text += " proto=%s helo=<%s>"
        values += (who.protocol, who.helo)
        if who.tls:
            text += " tls=%s"
            values.append(who.tls)
        if who.user:
            text += " user=<%s>"
            values.append(who.user)
        log(
            logger,
            logging.INFO,
            "rejected",
            text,
            *values,
            **who.fields,
            helo=who.helo,
            tls=who.tls,
            protocol=who.protocol,
            user=who.user,
            command=verb_shown(refusal.verb),
            from_=None if sender is None else shown(sender),
            to=to,
            reply=reply,
            reason=refusal.reason,
        )

    def _refusals_omitted(self, reason: str, count: int) -> None:
        log(
            logger,
            logging.INFO,
            "rejections-omitted",
            "%s: %d more rejected that are not shown: %s",
            self.listener,
            count,
            reason,
            listener=self.listener,
            reason=reason,
            count=count,
        )

    def tls_failed(self, who: LogContext, why: str) -> None:
        """Log a handshake after STARTTLS that failed."""
        if logger.isEnabledFor(logging.INFO) and self._handshakes.allows("tls-failed"):
            text = "%s: TLS handshake with %s failed: %s"
            values = (who.listener, who.address, shown(why))
            log(logger, logging.INFO, "tls-failed", text, *values, **who.fields, error=shown(why))

    # --- logins -------------------------------------------------------------------------------

    def logged_in(self, who: LogContext, user: str) -> None:
        """Log a login that succeeded."""
        text = "%s: %s: logged in as %s"
        values = (who.listener, who.address, user)
        log(logger, logging.INFO, "login-succeeded", text, *values, **who.fields, user=user)

    def login_deferred(self, who: LogContext, why: str) -> None:
        """Log that a password could not be verified; those that are wrong log themselves."""
        text = "%s: %s: login deferred: %s"
        values = (who.listener, who.address, why)
        log(logger, logging.WARNING, "login-deferred", text, *values, **who.fields, error=why)

    # --- ends ---------------------------------------------------------------------------------

    def wants_end(self, reason: str, useful: bool = False) -> bool:
        """Count the end of a session; whether it is to be logged.

        Args:
            reason: why it ended: one of a few words.
            useful: it has brought a message or a login. Others may be those of scanners, which
                come without end: they are bounded.
        """
        self.counts.ended(reason)
        if not logger.isEnabledFor(logging.INFO):
            return False
        return useful or self._sessions.allows(reason)

    def ended(
        self,
        who: LogContext,
        reason: str,
        duration: float,
        received: int,
        sent: int,
        messages: int,
        rejected: int,
    ) -> None:
        """Log the end of a session that is wanted.

        Args:
            who: whose.
            reason: why it ended.
            duration: seconds.
            received: octets of the client, after TLS.
            sent: octets to the client, before TLS.
            messages: that were accepted.
            rejected: negative replies.
        """
        log(
            logger,
            logging.INFO,
            "session-ended",
            "%s: %s ended: %s; %.3f s, %d octets in, %d out, %d messages, %d rejected, helo=<%s>",
            who.listener,
            who.address,
            reason,
            duration,
            received,
            sent,
            messages,
            rejected,
            who.helo,
            **who.fields,
            helo=who.helo,
            tls=who.tls,
            user=who.user,
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
            "%s: %d more sessions ended that are not shown: %s",
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
    """Return a reply as one line: the first one, where LMTP gives one for each recipient."""
    words: list[str] = []
    for line in reply.decode("utf-8", "backslashreplace").split("\r\n"):
        words.append(line[4:] if words else line)
        if line[3:4] != "-":
            break
    return shown(" ".join(words).replace("-", " ", 1) if len(words) > 1 else words[0])
