"""The message of a transaction: to mailboxes, to the relay, and the reply to it.

Rules of this file: messages; envelope_checks.py decides which senders and recipients are accepted,
smtp_connection.py handles what comes before the message. One with local and other recipients:

    last octet --> written, synced --> relay gets it --250--> moved into mailboxes --> our 250
                         | error           | 4xx, 5xx, lost          | error
                         v                 v                         v
                        4xx         relay's reply; nothing      4xx, although the relay has it:
                                    is delivered here           better twice than never

A message without local recipients waits for the relay in the spool.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.background_work import BackgroundWork
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import Content, Transaction
from fastlisten.handlers.smtp.mail_services import MailServices
from fastlisten.handlers.smtp.received_count import ReceivedCount
from fastlisten.handlers.smtp.trace_fields import return_path
from fastlisten.log_events import address_text, log, session_name
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.delivery import Delivery
from fastlisten.mail.dsn.message import LARGEST_HEADER, header_of
from fastlisten.mail.dsn.outcome import outcomes, wanted
from fastlisten.mail.maildir.maildir import unique_name
from fastlisten.mail.relay.message_source import MessageSource
from fastlisten.mail.relay.relay_error import RelayError
from fastlisten.mail.relay.session import RelaySession

__all__ = ["MessageDelivery"]

logger = logging.getLogger("fastlisten.smtp")

_NO_SPACE = reply(452, "4.3.1", "Insufficient system storage; try again later")
_NOT_STORED = reply(451, "4.3.0", "Message could not be stored; try again later")
_MAIL_LOOP = reply(554, "5.4.6", "Too many hops; the message is looping")

#: What all sessions share while they have no transaction; never changed.
_NO_ACCOUNTS: dict[str, Account] = {}
_NO_LMTP_ACCOUNTS: list[str] = []

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class MessageDelivery(BackgroundWork):
    """A connection that delivers messages."""

    __slots__ = (
        "_accounts",
        "_delivery",
        "_handler",
        "_header",
        "_info",
        "_lmtp_accounts",
        "_login",
        "_message_id",
        "_received_at",
        "_received_count",
        "_relay_offset",
        "_relay_reply",
        "_relay_session",
        "_user",
    )

    def __init__(self, handler: MailServices, info: ConnectionInfo) -> None:
        kind = DialogueEngine if handler.logs_dialogue else SmtpEngine
        super().__init__(kind(handler.limits, info.tls))
        self._handler = handler
        self._info = info
        self._user = ""  # the account that the client has logged in to
        self._login: Account | None = None  # the account as it was at the login
        self._accounts = _NO_ACCOUNTS
        self._lmtp_accounts = _NO_LMTP_ACCOUNTS  # LMTP: the account of each accepted recipient
        self._relay_session: RelaySession | None = None
        self._delivery: Delivery | None = None
        self._received_count: ReceivedCount | None = None
        self._header: bytearray | None = None  # what a DSN will quote, None if no DSN is wanted
        self._message_id = ""
        self._received_at = 0.0  # when the last octet of the message came
        self._relay_offset = 0  # octets at the start that are not for the relay
        self._relay_reply = ""  # the relay's reply to the message

    def _cipher(self) -> str:
        """Return TLS version and cipher in the form that Postfix uses, empty without TLS."""
        transport = self._transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        if tls is None or tls.cipher() is None:
            return ""
        name, _, bits = tls.cipher()
        return f"{tls.version()} with cipher {name} ({bits} bits)"

    def _forget(self, gone: bool = False) -> None:
        """Drop the transaction, and whatever is in progress for it.

        Args:
            gone: the client is gone: abort the session with the relay rather than end it by QUIT.
        """
        self._accounts, self._lmtp_accounts = _NO_ACCOUNTS, _NO_LMTP_ACCOUNTS
        self._received_count = None
        if self._delivery is not None:
            self._delivery.abandon()
            self._delivery = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._relay_session is not None:
            if gone:
                self._relay_session.abort()
            else:
                self._relay_session.finish()
            self._relay_session = None

    def _held_up(self) -> bool:
        """Return whether the message accepts no more octets for now."""
        return self._delivery is not None and self._delivery.full

    # --- the message --------------------------------------------------------------------------

    def _content(self, event: Content) -> None:
        """Add octets to the message; deliver it after the last."""
        delivery, received = self._delivery, self._received_count
        if received is None:
            delivery, received = self._begin()
        if not received.over:
            received.add(event.data)
            if self._header is not None and len(self._header) < LARGEST_HEADER:
                self._header += event.data[:LARGEST_HEADER]
            if received.count > self._handler.max_received and delivery is not None:
                delivery.abandon()
                delivery = self._delivery = None
        if delivery is None:  # the rest of a message that is looping
            if event.final:
                self._refuse_loop(received)
            return
        if event.data:
            delivery.add(event.data)
        if event.final:
            self._received_at = time.monotonic()
            if self._relays:
                delivery.prepare()
            else:
                delivery.finish()
            if delivery.done:
                self._answer_message(delivery)

    @property
    def _relays(self) -> bool:
        """Whether the relay gets the message."""
        return self._relay_session is not None and bool(self._relay_session.recipients)

    def _begin(self) -> tuple[Delivery, ReceivedCount]:
        """Begin a message."""
        engine, handler = self.engine, self._handler
        transaction = engine.transaction
        assert transaction is not None
        self._message_id = unique_name()
        accounts = list(self._accounts.values())
        delivery = self._delivery = Delivery(
            handler.office,
            accounts,
            self._message_id,
            asyncio.get_running_loop(),
            self._progress,
            independent=handler.per_recipient,
            spool=not accounts,
        )
        cipher = self._cipher() if engine.encrypted else ""
        field = handler.received(self._info, engine, self._message_id, cipher)
        path = return_path(transaction.sender) if accounts else b""
        delivery.add(path + field)
        self._relay_offset = len(path)
        self._relay_reply = ""
        if transaction.sender and wanted(transaction.recipients):
            self._header = bytearray()
        else:
            self._header = None
        received = self._received_count = ReceivedCount()
        return delivery, received

    def _progress(self) -> None:
        """Go on after one of the message's jobs has ended."""
        self._resume(self._next_step)

    def _next_step(self) -> None:
        delivery = self._delivery
        if delivery is not None:
            if delivery.done:
                self._answer_message(delivery)
            elif delivery.prepared and self._task is None:
                self._start(self._hand_over, delivery)

    async def _hand_over(self, delivery: Delivery) -> None:
        """Hand the message to the relay, then move it into the mailboxes."""
        relay_session = self._relay_session
        assert relay_session is not None
        size = delivery.size - self._relay_offset
        try:
            source = MessageSource(delivery.path, self._relay_offset, size)
            self._relay_reply = await relay_session.send(source) or "Ok"
        except RelayError as error:
            self._log(
                logging.WARNING,
                "message-refused-by-relay",
                "not accepted by relay %s: %s",
                str(relay_session),
                str(error),
                relay=str(relay_session),
                reply=str(error),
            )
            answer = reply(*error.reply)
            self._handler.counts.relayed("message", answer)
            self._drop_message(delivery)
            self.engine.reject(answer)
        except Exception:
            self._drop_message(delivery)
            raise
        else:
            self._handler.counts.relayed("message")
            delivery.publish()

    def _drop_message(self, delivery: Delivery) -> None:
        delivery.abandon()
        self._delivery = None
        self._end_message()

    def _answer_message(self, delivery: Delivery) -> None:
        """Reply to the message, and log what became of it."""
        self._delivery = None
        relay_session = self._relay_session if self._relays else None
        error = delivery.error
        if error is None:
            if self._handler.per_recipient:
                for name in delivery.errors:  # not delivered to these
                    self._accounts.pop(name, None)
            what = "%d octets delivered"
            values: tuple[object, ...] = (delivery.size,)
            if relay_session is not None:
                what += "; accepted by relay %s: %s"
                values += (str(relay_session), self._relay_reply)
            duration = time.monotonic() - self._received_at
            self._handler.counts.delivery(duration)
            self._log(
                logging.INFO,
                "message-delivered",
                what,
                *values,
                bytes=delivery.size,
                duration=round(duration, 4),
                relay=None if relay_session is None else str(relay_session),
                reply=self._relay_reply,
            )
            transaction = self.engine.transaction
            assert transaction is not None
            self._accept_message(delivery)
            if self._header is not None:
                self._report(delivery, transaction, header_of(bytes(self._header)))
        else:
            if self._relay_reply:
                self._log(
                    logging.ERROR,
                    "message-not-delivered",
                    "accepted by relay %s but not delivered here; a retry sends it there twice: %s",
                    str(relay_session),
                    error,
                    relay=str(relay_session),
                    error=str(error),
                )
            else:
                self._not_delivered("not delivered: %s", error, error=str(error))
            self.engine.reject(failure(error))
        self._end_message()

    def _accept_message(self, delivery: Delivery) -> None:
        done = f"250 2.0.0 Ok, id {self._message_id}"
        if not self._handler.per_recipient:
            if self._relay_reply:
                done += f"; the relay says: {self._relay_reply}"
            self.engine.accept(done.encode() + b"\r\n")
            return
        errors = delivery.errors
        if errors:
            for name, error in errors.items():
                text = "not delivered to %s: %s"
                self._not_delivered(text, name, error, to=name, error=str(error))
        answer = done.encode() + b"\r\n"
        self.engine.answer(
            [failure(errors[name]) if name in errors else answer for name in self._lmtp_accounts]
        )

    def _refuse_loop(self, received: ReceivedCount) -> None:
        self._log(
            logging.WARNING,
            "message-in-circles",
            "mail loop: %d Received fields",
            received.count,
            count=received.count,
        )
        self._end_message()
        self.engine.reject(_MAIL_LOOP)

    def _end_message(self) -> None:
        """Drop the message and end the session with the relay, which is between transactions."""
        self._accounts, self._lmtp_accounts = _NO_ACCOUNTS, _NO_LMTP_ACCOUNTS
        self._received_count = None
        if self._relay_session is not None:
            self._relay_session.finish()
            self._relay_session = None

    def _report(self, delivery: Delivery, transaction: Transaction, header: bytes) -> None:
        """Send the DSNs of success that were asked for."""
        errors = delivery.errors if self._handler.per_recipient else {}
        failed = [
            recipient
            for recipient, account in zip(transaction.recipients, self._lmtp_accounts, strict=False)
            if account in errors
        ]
        for outcome in outcomes(transaction.recipients, failed, self._relay_session):
            self._handler.dsn_sender.send(
                self._handler.office, transaction, outcome, header, bool(self._user)
            )

    def _not_delivered(self, what: str, *values: object, **fields: object) -> None:
        self._log(logging.ERROR, "message-not-delivered", what, *values, **fields)

    def _log(
        self,
        level: int,
        event: str,
        what: str,
        *values: object,
        **fields: object,
    ) -> None:
        """Log what becomes of the current message."""
        if not logger.isEnabledFor(level):
            return
        transaction = self.engine.transaction
        assert transaction is not None
        others = [] if self._relay_session is None else self._relay_session.recipients
        to = [*self._accounts, *(str(each.mailbox) for each in others)]
        shown = [*self._accounts, *(f"<{each.mailbox}>" for each in others)]
        info = self._info
        fields = {
            "listener": info.listener,
            "peer": info.peer,
            "port": info.port,
            "session": session_name(self._session),
            "id": self._message_id,
            "from_": transaction.sender,
            "to": to,
            "user": self._user,
            **fields,
        }
        log(
            logger,
            level,
            event,
            "%s: %s from <%s> at %s%s to %s: " + what,
            info.listener,
            self._message_id,
            transaction.sender,
            address_text(info.peer, info.port),
            f" as {self._user}" if self._user else "",
            ", ".join(shown),
            *values,
            **fields,
        )


def failure(error: OSError) -> bytes:
    """Return the reply to a message that could not be stored."""
    return _NO_SPACE if error.errno in _FULL else _NOT_STORED
