"""One SMTP or LMTP session that delivers mail: what the engine's events mean.

Rules of this file: the order of events, and their answers. It knows no transport
(engine_protocol.py has it), and nothing of where mail goes: that is up to the `Delivery` of the
transaction, which also decides about recipients. The engine may wait until

    a recipient or a message is answered, or more octets fit    the delivery -> LoggingOwner
    the accounts file, which has changed, is read               PostOffice.refresh
    a password is verified                                      auth_exchange.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.auth_exchange import AuthExchange
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Content,
    Event,
    Mail,
    Recipient,
    Reset,
    Response,
    Transaction,
)
from fastlisten.handlers.smtp.engine_user import EngineConnection
from fastlisten.handlers.smtp.incoming_message import IncomingMessage
from fastlisten.handlers.smtp.mail_services import MailServices
from fastlisten.handlers.smtp.message_log import MessageContext, log_message
from fastlisten.handlers.smtp.sender_check import sender_refusal
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.handlers.smtp.trace_fields import cipher_of
from fastlisten.handlers.transcript import transcript
from fastlisten.log_events import session_name
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery_interface import Delivery
from fastlisten.mail.dsn.outcome import wanted
from fastlisten.mail.reply import Reply

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["MailSession"]

logger = logging.getLogger("fastlisten.smtp")

_MAIL_LOOP = reply(554, "5.4.6", "Too many hops; the message is looping")


class MailSession:
    """One session; implements `EngineUser` and `LoggingOwner`.

    Args:
        services: what the listener's sessions share.
        info: about the client.

    Attributes:
        engine: the protocol.
    """

    __slots__ = (
        "_auth",
        "_connection",
        "_delivery",
        "_info",
        "_login",
        "_message",
        "_services",
        "engine",
    )

    def __init__(self, services: MailServices, info: ConnectionInfo) -> None:
        kind = DialogueEngine if services.logs_dialogue else SmtpEngine
        self.engine: SmtpEngine = kind(services.limits, info.tls)
        self._services = services
        self._info = info
        self._connection: EngineConnection | None = None  # None before its start and after its end
        self._login: Account | None = None  # the client's account, as it was then
        self._auth: AuthExchange | None = None
        self._delivery: Delivery | None = None  # from the transaction's first RCPT
        self._message: IncomingMessage | None = None  # from its first octet

    # --- for the connection -------------------------------------------------------------------

    @property
    def session_log(self) -> SessionLog:
        """The listener's log."""
        return self._services.session_log

    @property
    def tls(self) -> TlsSettings | None:
        """How to start TLS."""
        return self._services.settings.tls

    @property
    def user_name(self) -> str:
        """The name of the user that has logged in, empty if none has."""
        return "" if self._login is None else self._login.name

    @property
    def waits(self) -> bool:
        """Whether the client waits for an answer, or for room for more octets."""
        return self.engine.waiting or self.held_up()

    @property
    def busy(self) -> bool:
        """Whether a transaction is in progress."""
        return self.engine.transaction is not None

    def held_up(self) -> bool:
        """Return whether the message takes no more octets for now."""
        return self._delivery is not None and self._delivery.full

    def origin(self) -> tuple[str, str, int]:
        """Return the listener's id, the client's address and its port."""
        info = self._info
        return info.listener, info.peer, info.port

    def connected(self, connection: EngineConnection) -> None:
        """Begin; log the dialogue if that is wanted."""
        self._connection = connection
        if isinstance(self.engine, DialogueEngine):
            listener, peer, port = self.origin()
            self.engine.tell = transcript(listener, peer, port, session_name(connection.session))

    def write_resumed(self) -> None:
        """Do nothing: only the connection waits for this."""

    def admits_tls(self) -> bool:
        """Return that STARTTLS may go on."""
        return True

    def forget_session(self) -> None:
        """Drop the transaction and the login."""
        self._drop()
        self._login = None

    def tls_begun(self) -> None:
        """Do nothing: the engine begins anew by itself."""

    def farewell_said(self) -> None:
        """Drop whatever is in progress."""
        self._drop()

    def disconnected(self) -> None:
        """Drop everything; a message that is not delivered yet will not be."""
        self._drop()
        self._connection = None

    def _drop(self) -> None:
        """Drop the transaction, and whatever is in progress."""
        if self._auth is not None:
            self._auth.abort()
            self._auth = None
        if self._delivery is not None:
            self._delivery.abort()
            self._delivery = self._message = None

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Handle an event."""
        if isinstance(event, Content):
            self._content(event)
        elif isinstance(event, Recipient):
            self._recipient(event)
        elif isinstance(event, Mail):
            self._sender(event.transaction)
        elif isinstance(event, Reset):
            self._drop()
        elif isinstance(event, Auth):
            self._begin_auth(event)
        elif isinstance(event, Response):
            if event.data is None:
                self._auth = None
            else:
                assert self._auth is not None
                self._auth.step(event.data)
        else:
            raise AssertionError(f"unexpected {event}")

    def _begin_auth(self, event: Auth) -> None:
        services = self._services
        assert self._connection is not None
        self._auth = AuthExchange(
            self._connection,
            self._info,
            event.mechanism,
            services.office.logins,
            services.session_log,
            self._auth_ended,
        )
        self._auth.step(event.response)

    def _auth_ended(self, account: Account | None) -> None:
        self._auth, self._login = None, account or self._login

    # --- MAIL ---------------------------------------------------------------------------------

    def _sender(self, transaction: Transaction) -> None:
        """Answer MAIL; have the accounts read first if the file has changed."""
        services, connection, login = self._services, self._connection, self._login
        if login is None or not transaction.sender or not services.sender_must_match:
            self.engine.accept()
        elif services.office.accounts.current():
            self._answer_sender(login, transaction)
        else:
            assert connection is not None
            services.office.refresh(
                asyncio.get_running_loop(),
                lambda: connection.resume(lambda: self._answer_sender(login, transaction)),
            )

    def _answer_sender(self, login: Account, transaction: Transaction) -> None:
        refusal = sender_refusal(self._services.office.accounts.roster, login, transaction)
        if refusal is None:
            self.engine.accept()
        else:
            self.engine.reject(refusal)

    # --- RCPT ---------------------------------------------------------------------------------

    def _recipient(self, recipient: Recipient) -> None:
        delivery = self._delivery
        if delivery is None:
            transaction = self.engine.transaction
            assert transaction is not None
            login = self._login if self.engine.authenticated else None
            delivery = self._services.begin(transaction, self, self._info, login)
            self._delivery = delivery
        answer = delivery.add_recipient(recipient)
        if answer is not None:
            self._answer_recipient(answer)

    def _answer_recipient(self, answer: Reply) -> None:
        if answer.code < 300:
            self.engine.accept()
        else:
            self.engine.reject(reply(*answer))

    # --- the message --------------------------------------------------------------------------

    def _content(self, event: Content) -> None:
        """Pass octets on; commit after the last."""
        message, delivery = self._message or self._begin_message(), self._delivery
        assert delivery is not None
        message.add(event.data)
        if not event.final:
            return
        if message.looping:
            self._refuse_loop(message)
            return
        replies = delivery.commit()
        if replies is not None:
            self._answer_message(replies)

    def _begin_message(self) -> IncomingMessage:
        transaction, delivery = self.engine.transaction, self._delivery
        services, connection = self._services, self._connection
        assert transaction is not None
        assert delivery is not None
        assert connection is not None
        cipher = cipher_of(connection.transport) if self.engine.encrypted else ""
        delivery.add(services.received(self._info, self.engine, delivery.name, cipher))
        message = self._message = IncomingMessage(
            delivery,
            services.max_received,
            keeps_header=bool(transaction.sender and wanted(transaction.recipients)),
        )
        return message

    def _answer_message(self, replies: Sequence[Reply]) -> None:
        """Reply to the message, and send the DSNs that were asked for."""
        engine, transaction = self.engine, self.engine.transaction
        message, delivery = self._message, self._delivery
        assert transaction is not None
        assert message is not None
        assert delivery is not None
        self._delivery = self._message = None
        first = replies[0]
        if any(each != first for each in replies):
            engine.answer([reply(*each) for each in replies])
        elif first.code < 300:
            engine.accept(reply(*first))
        else:
            engine.reject(reply(*first))
            return
        header = message.header
        if header is not None:
            login = bool(self._login)
            for outcome in delivery.outcomes():
                self._services.send_dsn(transaction, outcome, header, login)

    def _refuse_loop(self, message: IncomingMessage) -> None:
        what, count = "mail loop: %d Received fields", message.received
        self.log(logging.WARNING, "message-in-circles", what, count, count=count)
        self._delivery = self._message = None
        self.engine.reject(_MAIL_LOOP)

    # --- for the delivery ---------------------------------------------------------------------

    def recipient_answered(self, answer: Reply) -> None:
        """Answer RCPT."""
        if self._connection is not None:
            self._connection.resume(lambda: self._answer_recipient(answer))

    def delivery_resumed(self) -> None:
        """Go on with the message."""
        if self._connection is not None:
            self._connection.resume()

    def message_answered(self, replies: Sequence[Reply]) -> None:
        """Answer the message."""
        if self._connection is not None:
            self._connection.resume(lambda: self._answer_message(replies))

    def log_fault(self) -> None:
        """Log the exception that is being handled."""
        if self._connection is not None:
            self._connection.log_fault()

    def log(self, level: int, event: str, what: str, *values: object, **fields: object) -> None:
        """Log what becomes of the current message."""
        if not logger.isEnabledFor(level):
            return
        transaction, delivery = self.engine.transaction, self._delivery
        connection = self._connection
        assert transaction is not None
        assert delivery is not None
        assert connection is not None
        about = MessageContext(connection.log_context(), delivery, transaction.sender)
        log_message(about, level, event, what, values, fields)
