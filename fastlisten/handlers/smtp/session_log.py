"""The log of a listener's SMTP sessions: rejections, logins and ends of sessions.

Rules of this file: what handlers/session_log.py does not have; engine_protocol.py decides when
something is logged. Messages and logins have no bound: they cost the client more than us.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastlisten.handlers.session_log import SessionContext, SessionLogBase
from fastlisten.handlers.smtp.engine.smtp_events import Recipient, Refusal
from fastlisten.handlers.smtp.engine.verbs import verb_shown
from fastlisten.log_events import log, shortened
from fastlisten.log_throttle import Throttle
from fastlisten.mail.counts import Counts

__all__ = ["LogContext", "SessionLog"]

logger = logging.getLogger("fastlisten.smtp")

#: The number of recipients that a line names; the others are counted.
_RECIPIENTS = 5


@dataclass(slots=True)
class LogContext(SessionContext):
    """The session that a record is about; `SessionContext` says more.

    Attributes:
        helo: the name that the client gave in HELO, EHLO or LHLO.
        protocol: SMTP, ESMTP or LMTP.
    """

    helo: str = ""
    protocol: str = "SMTP"


class SessionLog(SessionLogBase):
    """The log of one listener.

    Args:
        listener: its id.
        counts: the counters of its sessions.
    """

    def __init__(self, listener: str, counts: Counts) -> None:
        super().__init__(logger, listener, counts)
        self._refusals = Throttle(self._rejections_omitted)

    def close(self) -> None:
        """Log what was omitted."""
        self._refusals.close()
        super().close()

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

    # --- ends ---------------------------------------------------------------------------------

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
