"""One SMTP or LMTP connection: which event leads to what.

Rules of this file: events in their order, and AUTH. envelope_checks.py answers MAIL and RCPT,
message_delivery.py delivers, engine_protocol.py says when something is executed. The engine waits
for:

    a delivery is being delivered, or takes no more for now     Delivery -> _progress
    the accounts file has changed and is read again           PostOffice.refresh -> _looked_up
    a password is being verified, or the relay is asked       _work
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine, transcript
from fastlisten.handlers.smtp.engine.events import (
    Auth,
    Content,
    Event,
    Mail,
    Recipient,
    Reset,
    Response,
)
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.envelope_checks import EnvelopeChecks
from fastlisten.handlers.smtp.mail_services import MailServices
from fastlisten.handlers.smtp.sasl import Credentials, LoginMechanism, PlainMechanism, mechanism
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.log_events import session_name
from fastlisten.mail.logins.logins import LoginsBusyError

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["SmtpConnection"]

_WRONG_LOGIN = reply(535, "5.7.8", "Authentication credentials invalid")
_LOGINS_BUSY = reply(454, "4.7.0", "Temporary authentication failure; try again later")


class SmtpConnection(EnvelopeChecks):
    """One connection. The native core (or whoever serves it) has sent the greeting."""

    __slots__ = ("_sasl",)

    def __init__(self, handler: MailServices, info: ConnectionInfo) -> None:
        super().__init__(handler, info)
        self._sasl: PlainMechanism | LoginMechanism | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        if isinstance(self.engine, DialogueEngine):
            info = self._info
            name = session_name(self._session)
            self.engine.tell = transcript(info.listener, info.peer, info.port, name)

    @property
    def busy(self) -> bool:
        """A transaction is in progress: from MAIL accepted until the reply to its end is given.

        Or TLS is beginning: a farewell would be taken for a part of it.
        """
        return self.engine.transaction is not None or self.engine.securing

    @property
    def working(self) -> bool:
        """The server is at work for the client: its silence is not the client's fault."""
        engine = self.engine
        return engine.waiting or engine.securing or self._scheduled or self._held_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; a message that is not whole, or not yet published, is dropped."""
        self._log_end(exc)
        self._transport = None
        self._forget(gone=True)

    # --- events -------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, Content):
            self._content(event)
        elif isinstance(event, Recipient):
            self._look_up(event)
        elif isinstance(event, Mail):
            self._accounts, self._homes = {}, []
            self._check_sender(event.transaction)
        elif isinstance(event, Reset):
            self._forget()
        elif isinstance(event, Auth):
            self._sasl = mechanism(event.mechanism)
            self._step(event.response)
        elif isinstance(event, Response):
            if event.data is None:
                self._sasl = None
            else:
                self._step(event.data)
        else:
            raise AssertionError(f"nobody asked for {event}")

    def _leave(self) -> None:
        """Forget what is under way."""
        self._forget()

    # --- TLS ----------------------------------------------------------------------------------

    @property
    def _tls(self) -> TlsSettings | None:
        """How TLS begins."""
        return self._handler.settings.tls

    def _forget_session(self) -> None:
        """Forget the transaction, and who has logged in."""
        self._forget()
        self._user, self._login = "", None

    def _whence(self) -> tuple[str, str, int]:
        """Return the listener, the client's address and its port."""
        info = self._info
        return info.listener, info.peer, info.port

    @property
    def _session_log(self) -> SessionLog:
        """The log of the listener."""
        return self._handler.session_log

    @property
    def _user_name(self) -> str:
        """Who has logged in, empty if nobody has."""
        return self._user

    # --- AUTH ---------------------------------------------------------------------------------

    def _step(self, response: bytes | None) -> None:
        """Go on with the dialogue of AUTH."""
        assert self._sasl is not None
        try:
            result = self._sasl.step(response)
        except Refused as error:
            self._sasl = None
            self.engine.reject(error.reply)
            return
        if isinstance(result, Credentials):
            self._sasl = None
            self._start(self._check, result)
        else:
            self.engine.challenge(result)

    async def _check(self, credentials: Credentials) -> None:
        """Answer AUTH by whether the password is right."""
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
            self.engine.reject(_WRONG_LOGIN)
            return
        self._user, self._login = account.name, account
        self._session_log.logged_in(self._log_context(), account.name)
        self.engine.accept()
