"""What becomes of the message of a transaction: the delivery, the relay, the replies about it.

Rules of this file: messages; whose mail is taken is decided in envelope_checks.py, what comes
over the wire in smtp_connection.py. A message with recipients both here and elsewhere:

    CONTENT --end--> prepare --> relay gets DATA --250--> publish --> our 250
                        |             | 4xx, 5xx, lost       | an error: 4xx, although the relay
                        v             v                      v has it: better twice than never
                       4xx     nothing published,
                               the relay's reply

Without local recipients the message lies in the spool meanwhile, and is removed afterwards.
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
from fastlisten.handlers.smtp.engine.events import Content, Transaction
from fastlisten.handlers.smtp.engine.replies import reply
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
_NOT_STORED = reply(451, "4.3.0", "The message could not be stored; try again later")
_IN_CIRCLES = reply(554, "5.4.6", "Too many hops; the message is looping")

#: Those of a session outside of a transaction, shared by all: never changed.
_NO_ACCOUNTS: dict[str, Account] = {}
_NO_HOMES: list[str] = []

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class MessageDelivery(BackgroundWork):
    """The part of a connection that deals with messages."""

    __slots__ = (
        "_accounts",
        "_delivery",
        "_handler",
        "_header",
        "_homes",
        "_hops",
        "_info",
        "_login",
        "_name",
        "_outgoing",
        "_since",
        "_skip",
        "_user",
        "_words",
    )

    def __init__(self, handler: MailServices, info: ConnectionInfo) -> None:
        kind = DialogueEngine if handler.logs_dialogue else SmtpEngine
        super().__init__(kind(handler.limits, info.tls))
        self._handler = handler
        self._info = info
        self._user = ""  # the name of the account that the client has logged in to
        self._login: Account | None = None  # as it was then
        self._accounts = _NO_ACCOUNTS
        self._homes = _NO_HOMES  # LMTP: the account of each accepted recipient
        self._outgoing: RelaySession | None = None
        self._delivery: Delivery | None = None
        self._hops: ReceivedCount | None = None
        self._header: bytearray | None = None  # what a notice will quote, None if none is wanted
        self._name = ""
        self._since = 0.0  # when the message was whole
        self._skip = 0  # octets of the delivery that are not for the relay
        self._words = ""  # the relay's about the message

    def _cipher(self) -> str:
        """Return protocol version and cipher as Postfix words them, empty without TLS."""
        transport = self._transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        if tls is None or tls.cipher() is None:
            return ""
        name, _, bits = tls.cipher()
        return f"{tls.version()} with cipher {name} ({bits} bits)"

    def _forget(self, gone: bool = False) -> None:
        """Drop what is kept of a transaction, and what is under way for it.

        Args:
            gone: the client is not there any more; nobody takes leave of anybody.
        """
        self._accounts, self._homes = _NO_ACCOUNTS, _NO_HOMES
        self._hops = None
        if self._delivery is not None:
            self._delivery.abandon()
            self._delivery = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._outgoing is not None:
            if gone:
                self._outgoing.abort()
            else:
                self._outgoing.finish()
            self._outgoing = None

    def _held_up(self) -> bool:
        """Whether the delivery takes no more for now."""
        return self._delivery is not None and self._delivery.full

    # --- the message --------------------------------------------------------------------------

    def _content(self, event: Content) -> None:
        """Add to the delivery, and deliver it when it is whole."""
        delivery, hops = self._delivery, self._hops
        if hops is None:
            delivery, hops = self._begin()
        if not hops.over:
            hops.add(event.data)
            if self._header is not None and len(self._header) < LARGEST_HEADER:
                self._header += event.data[:LARGEST_HEADER]
            if hops.count > self._handler.max_received and delivery is not None:
                delivery.abandon()
                delivery = self._delivery = None
        if delivery is None:  # the rest of a message that goes in circles
            if event.final:
                self._refuse_circle(hops)
            return
        if event.data:
            delivery.add(event.data)
        if event.final:
            self._since = time.monotonic()
            if self._sends_on:
                delivery.prepare()
            else:
                delivery.finish()
            if delivery.done:
                self._answer_message(delivery)

    @property
    def _sends_on(self) -> bool:
        """Whether the relay gets the message."""
        return self._outgoing is not None and bool(self._outgoing.recipients)

    def _begin(self) -> tuple[Delivery, ReceivedCount]:
        """Begin the delivery of a message."""
        engine, handler = self.engine, self._handler
        transaction = engine.transaction
        assert transaction is not None
        self._name = unique_name()
        accounts = list(self._accounts.values())
        delivery = self._delivery = Delivery(
            handler.office,
            accounts,
            self._name,
            asyncio.get_running_loop(),
            self._progress,
            independent=handler.per_recipient,
            spool=not accounts,
        )
        cipher = self._cipher() if engine.encrypted else ""
        received = handler.received(self._info, engine, self._name, cipher)
        path = return_path(transaction.sender) if accounts else b""
        delivery.add(path + received)
        self._skip = len(path)
        self._words = ""
        if transaction.sender and wanted(transaction.recipients):
            self._header = bytearray()
        else:
            self._header = None
        hops = self._hops = ReceivedCount()
        return delivery, hops

    def _progress(self) -> None:
        """Go on after a job of the delivery has ended."""
        self._resume(self._next_step)

    def _next_step(self) -> None:
        delivery = self._delivery
        if delivery is not None:
            if delivery.done:
                self._answer_message(delivery)
            elif delivery.prepared and self._task is None:
                self._start(self._hand_over, delivery)

    async def _hand_over(self, delivery: Delivery) -> None:
        """Hand the message to the relay, and publish it then."""
        outgoing = self._outgoing
        assert outgoing is not None
        size = delivery.size - self._skip
        try:
            source = MessageSource(delivery.path, self._skip, size)
            self._words = await outgoing.send(source) or "yes"
        except RelayError as error:
            self._log(
                logging.WARNING,
                "message-refused-by-relay",
                "not taken by relay %s: %s",
                str(outgoing),
                str(error),
                relay=str(outgoing),
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
        """Say what became of the message."""
        self._delivery = None
        outgoing = self._outgoing if self._sends_on else None
        error = delivery.error
        if error is None:
            if self._handler.per_recipient:
                for name in delivery.errors:  # it is not delivered to these
                    self._accounts.pop(name, None)
            what = "%d octets delivered"
            values: tuple[object, ...] = (delivery.size,)
            if outgoing is not None:
                what += "; relay %s has it: %s"
                values += (str(outgoing), self._words)
            duration = time.monotonic() - self._since
            self._handler.counts.delivery(duration)
            self._log(
                logging.INFO,
                "message-delivered",
                what,
                *values,
                bytes=delivery.size,
                duration=round(duration, 4),
                relay=None if outgoing is None else str(outgoing),
                reply=self._words,
            )
            transaction = self.engine.transaction
            assert transaction is not None
            self._accept_message(delivery)
            if self._header is not None:
                self._report(delivery, transaction, header_of(bytes(self._header)))
        else:
            if self._words:
                self._log(
                    logging.ERROR,
                    "message-not-delivered",
                    "not delivered although relay %s has it, which will get it twice: %s",
                    str(outgoing),
                    error,
                    relay=str(outgoing),
                    error=str(error),
                )
            else:
                self._not_delivered("not delivered: %s", error, error=str(error))
            self.engine.reject(failure(error))
        self._end_message()

    def _accept_message(self, delivery: Delivery) -> None:
        done = f"250 2.0.0 Ok, id {self._name}"
        if not self._handler.per_recipient:
            if self._words:
                done += f"; the relay says: {self._words}"
            self.engine.accept(done.encode() + b"\r\n")
            return
        errors = delivery.errors
        if errors:
            for name, error in errors.items():
                text = "not delivered to %s: %s"
                self._not_delivered(text, name, error, to=name, error=str(error))
        answer = done.encode() + b"\r\n"
        self.engine.answer(
            [failure(errors[name]) if name in errors else answer for name in self._homes]
        )

    def _refuse_circle(self, hops: ReceivedCount) -> None:
        self._log(
            logging.WARNING,
            "message-in-circles",
            "mail loop: %d Received fields",
            hops.count,
            count=hops.count,
        )
        self._end_message()
        self.engine.reject(_IN_CIRCLES)

    def _end_message(self) -> None:
        """Forget the message; what the relay is in the midst of has ended."""
        self._accounts, self._homes = _NO_ACCOUNTS, _NO_HOMES
        self._hops = None
        if self._outgoing is not None:
            self._outgoing.finish()
            self._outgoing = None

    def _report(self, delivery: Delivery, transaction: Transaction, header: bytes) -> None:
        """Have the sender told of what was delivered, where that was asked for."""
        errors = delivery.errors if self._handler.per_recipient else {}
        failed = [
            recipient
            for recipient, home in zip(transaction.recipients, self._homes, strict=False)
            if home in errors
        ]
        for outcome in outcomes(transaction.recipients, failed, self._outgoing):
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
        """Log what became of the message in progress."""
        if not logger.isEnabledFor(level):
            return
        transaction = self.engine.transaction
        assert transaction is not None
        others = [] if self._outgoing is None else self._outgoing.recipients
        to = [*self._accounts, *(str(each.mailbox) for each in others)]
        shown = [*self._accounts, *(f"<{each.mailbox}>" for each in others)]
        info = self._info
        fields = {
            "listener": info.listener,
            "peer": info.peer,
            "port": info.port,
            "session": session_name(self._session),
            "id": self._name,
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
            self._name,
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
