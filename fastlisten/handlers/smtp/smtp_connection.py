"""One SMTP or LMTP connection that delivers mail: it handles the engine's events, and AUTH.

Rules of this file: the order of events, and AUTH. envelope_checks.py answers MAIL and RCPT,
message_delivery.py delivers, engine_protocol.py decides when something is executed. The engine may
wait until

    a message is delivered, or accepts more octets            Delivery -> _progress
    the accounts file, which has changed, is read             PostOffice.refresh -> _resume
    a password is verified, or the relay has replied          background_work.py
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine, transcript
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Content,
    Event,
    Mail,
    Recipient,
    Reset,
    Response,
)
from fastlisten.handlers.smtp.envelope_checks import EnvelopeChecks
from fastlisten.handlers.smtp.mail_services import MailServices
from fastlisten.handlers.smtp.sasl import Credentials, LoginMechanism, PlainMechanism, mechanism
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.log_events import session_name
from fastlisten.mail.logins.logins import LoginsBusyError

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["SmtpConnection"]

_INVALID_CREDENTIALS = reply(535, "5.7.8", "Authentication credentials invalid")
_LOGINS_BUSY = reply(454, "4.7.0", "Temporary authentication failure; try again later")


class SmtpConnection(EnvelopeChecks):
    """One connection. The greeting has been sent."""

    __slots__ = ("_sasl",)

    def __init__(self, handler: MailServices, info: ConnectionInfo) -> None:
        super().__init__(handler, info)
        self._sasl: PlainMechanism | LoginMechanism | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and log the dialogue if that is wanted."""
        super().connection_made(transport)
        if isinstance(self.engine, DialogueEngine):
            info = self._info
            name = session_name(self._session)
            self.engine.tell = transcript(info.listener, info.peer, info.port, name)

    @property
    def busy(self) -> bool:
        """Whether a transaction is in progress: from an accepted MAIL until its last reply.

        Or TLS is starting: a farewell would be taken for part of the handshake.
        """
        return self.engine.transaction is not None or self.engine.securing

    @property
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""
        engine = self.engine
        return engine.waiting or engine.securing or self._scheduled or self._held_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything; a message that is incomplete or not yet published is not delivered."""
        self._log_end(exc)
        self._transport = None
        self._forget(gone=True)

    # --- events -------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Handle an event."""
        if isinstance(event, Content):
            self._content(event)
        elif isinstance(event, Recipient):
            self._look_up(event)
        elif isinstance(event, Mail):
            self._accounts, self._lmtp_accounts = {}, []
            self._check_sender(event.transaction)
        elif isinstance(event, Reset):
            self._forget()
        elif isinstance(event, Auth):
            self._sasl = mechanism(event.mechanism)
            self._next_auth_step(event.response)
        elif isinstance(event, Response):
            if event.data is None:
                self._sasl = None
            else:
                self._next_auth_step(event.data)
        else:
            raise AssertionError(f"unexpected {event}")

    def _abandon(self) -> None:
        """Drop whatever is in progress."""
        self._forget()

    # --- TLS ----------------------------------------------------------------------------------

    @property
    def _tls(self) -> TlsSettings | None:
        """How to start TLS."""
        return self._handler.settings.tls

    def _forget_session(self) -> None:
        """Drop the transaction and the login."""
        self._forget()
        self._user, self._login = "", None

    def _origin(self) -> tuple[str, str, int]:
        """Return the listener's id, the client's address and its port."""
        info = self._info
        return info.listener, info.peer, info.port

    @property
    def _session_log(self) -> SessionLog:
        """The listener's log."""
        return self._handler.session_log

    @property
    def _user_name(self) -> str:
        """The name of the user that has logged in, empty if none has."""
        return self._user

    # --- AUTH ---------------------------------------------------------------------------------

    def _next_auth_step(self, response: bytes | None) -> None:
        """Take the next step of the AUTH exchange."""
        assert self._sasl is not None
        try:
            result = self._sasl.step(response)
        except Refused as error:
            self._sasl = None
            self.engine.reject(error.reply)
            return
        if isinstance(result, Credentials):
            self._sasl = None
            self._start(self._log_in, result)
        else:
            self.engine.challenge(result)

    async def _log_in(self, credentials: Credentials) -> None:
        """Verify the password, and answer AUTH."""
        logins = self._handler.office.logins
        try:
            account = await logins.check(
                credentials.name,
                credentials.password,
                self._info.peer,
                self._info.listener,
                session_name(self._session),
                self._info.port,
            )
        except LoginsBusyError as error:
            self._session_log.login_deferred(self._log_context(), str(error))
            self.engine.reject(_LOGINS_BUSY)
            return
        if account is None:
            self.engine.reject(_INVALID_CREDENTIALS)
            return
        self._user, self._login = account.name, account
        self._session_log.logged_in(self._log_context(), account.name)
        self.engine.accept()
