"""The smtp handler: what is the same for all SMTP connections of a listener.

Rules of this file: bytes that the native core sends (greeting, refusals, farewells), the limits,
the post office, and the header fields that a message gets. What happens on a connection is in
smtp_connection.py.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import functools
import importlib
import time
from typing import TYPE_CHECKING, Any, ClassVar

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason
from fastlisten.handlers.smtp_connection import SmtpConnection
from fastlisten.handlers.smtp_engine import Engine, Limits
from fastlisten.handlers.smtp_options import OPTIONS
from fastlisten.handlers.smtp_replies import reply
from fastlisten.mail.delivery import PostOffice

if TYPE_CHECKING:
    from fastlisten.handlers.aiosmtpd_controller import (
        Controller,
        UnixSocketController,
        UnixSocketUnthreadedController,
        UnthreadedController,
        serve_smtp,
    )
    from fastlisten.handlers.aiosmtpd_hosted import Hosted

__all__ = [
    "Controller",
    "SmtpHandler",
    "UnixSocketController",
    "UnixSocketUnthreadedController",
    "UnthreadedController",
    "serve_smtp",
]


def __getattr__(name: str) -> Any:
    """Import aiosmtpd's controllers when somebody asks for them, and not before."""
    if name in __all__:
        return getattr(importlib.import_module("fastlisten.handlers.aiosmtpd_controller"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SmtpHandler(Handler):
    """SMTP for one listener (RFC 5321)."""

    name: ClassVar[str] = "smtp"
    default_port: ClassVar[int] = 25
    default_tls_port: ClassVar[int] = 465
    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    options = OPTIONS

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.greeting = f"220 {settings.hostname} ESMTP {settings.greeting}".rstrip().encode()
        self.greeting += b"\r\n"
        self._office: PostOffice | None = None
        self._hosted: Hosted | None = None
        if settings.options.get("aiosmtpd-handler"):
            from fastlisten.handlers.aiosmtpd_hosted import Hosted

            self._hosted = Hosted(settings)
        self._date = (0, "")

    @functools.cached_property
    def limits(self) -> Limits:
        """What holds for every connection of the listener; made for the first one."""
        settings = self.settings
        values = {row.key: row.default for row in OPTIONS} | dict(settings.options)
        return Limits(
            hostname=settings.hostname,
            max_message_size=values["max-message-size"],
            max_recipients=values["max-recipients"],
            max_errors=values["max-errors"],
            starttls=settings.tls is not None and not settings.tls_implicit,
        )

    def refusal(self, reason: Reason) -> bytes:
        """Return what a client hears that is not served (RFC 5321 3.1, RFC 3463)."""
        code, status, text = {
            Reason.LIMIT: (421, "4.3.2", "Too many connections; try again later"),
            Reason.OVERLOAD: (421, "4.3.2", "Too busy; try again later"),
            Reason.RATE: (421, "4.7.0", "Too many connections from your address; wait"),
            Reason.ADDRESS: (421, "4.7.0", "Too many connections from your address"),
            Reason.DENIED: (554, "5.7.1", "Your address is not allowed here"),
        }.get(reason, (421, "4.3.2", "Try again later"))
        return reply(code, status, f"{self.settings.hostname} {text}")

    def farewell(self, reason: Reason) -> bytes:
        """Return what a served client hears before the server closes."""
        status, text = {
            Reason.IDLE: ("4.4.2", "Timeout; closing connection"),
            Reason.FIRST_BYTE: ("4.4.2", "Timeout; closing connection"),
        }.get(reason, ("4.3.2", "Shutting down; try again later"))
        return reply(421, status, f"{self.settings.hostname} {text}")

    def notes(self) -> tuple[str, ...]:
        """Return why no mail can be delivered yet, if so."""
        if self._hosted is not None:
            return self._hosted.notes()
        accounts = self.office.accounts
        if accounts.roster is None:
            return (f"{accounts.path} cannot be read or does not exist: all mail must wait",)
        if not accounts.roster.accounts:
            return (f"{accounts.path} has no accounts: all mail will be rejected",)
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection."""
        if self._hosted is not None:
            return self._hosted.connection(info)
        return SmtpConnection(self, info)

    async def start(self) -> None:
        """Open the post office and read the accounts.

        Raises:
            ValueError: there is no data directory to deliver to.
        """
        if not self.settings.data_directory:
            raise ValueError("the smtp handler needs a data directory")
        office = PostOffice.enter(
            self.settings.data_directory, self.settings.extra.get("accounts", "")
        )
        self._office = office
        await asyncio.to_thread(office.accounts.reload)
        if self._hosted is not None:
            try:
                self._hosted.start(office)
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Leave the post office; what is being delivered is waited for."""
        if self._hosted is not None:
            self._hosted.stop()
        if self._office is not None:
            office, self._office = self._office, None
            await asyncio.to_thread(office.leave)

    @property
    def office(self) -> PostOffice:
        """The post office.

        Raises:
            RuntimeError: the handler has not been started.
        """
        if self._office is None:
            raise RuntimeError("the handler has not been started")
        return self._office

    def trace(self, info: ConnectionInfo, engine: Engine, name: str, cipher: str = "") -> bytes:
        """Return the header fields that a message gets on top of it (RFC 5321 4.4).

        Args:
            info: where it comes from.
            engine: the session, with its transaction.
            name: the identifier of the message.
            cipher: TLS version and cipher in words, empty where there is none or it is not known.
        """
        transaction = engine.transaction
        assert transaction is not None
        client = engine.client_name
        if info.peer:
            peer = info.peer.partition("%")[0]
            client += f" ([IPv6:{peer}])" if ":" in peer else f" ([{peer}])"
        # RFC 3848 and RFC 6531 4.3 name the kinds; there is none for TLS without EHLO.
        kind = "UTF8SMTP" if transaction.smtputf8 else "ESMTP" if engine.extended else "SMTP"
        if engine.encrypted and engine.extended:
            kind += "S"
        if cipher:
            client += f"\r\n\t(using {cipher})"
        recipients = transaction.recipients
        receiver = f"\r\n\tfor <{recipients[0].mailbox}>" if len(recipients) == 1 else ""
        return (
            f"Return-Path: <{transaction.sender}>\r\n"
            f"Received: from {client}\r\n\tby {self.settings.hostname} with {kind} id {name}"
            f"{receiver};\r\n\t{self._now()}\r\n"
        ).encode()

    def _now(self) -> str:
        """Return the date for a header; made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
            self._date = (now, email.utils.format_datetime(moment))
        return self._date[1]
