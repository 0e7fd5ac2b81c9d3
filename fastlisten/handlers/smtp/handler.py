"""The smtp and lmtp handlers: what all connections of a listener share.

Rules of this file: the bytes that the native core sends (greeting, refusals, farewells), the
engine's limits, the post office, the relay, and which of them a message is delivered by. What
happens on a connection is in engine_protocol.py and mail_session.py.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import TYPE_CHECKING, ClassVar, Literal

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason, SettingError
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.mail_session import MailSession
from fastlisten.handlers.smtp.pregreet import PregreetDelay
from fastlisten.handlers.smtp.role import Role, role_by_port
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.handlers.smtp.settings import LMTP, SMTP
from fastlisten.handlers.smtp.trace_fields import TraceFields
from fastlisten.mail.accounts import passwords
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.mailbox_delivery import MailboxDelivery
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery_interface import Delivery, LoggingOwner
from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.dsn.sender import DsnSender
from fastlisten.mail.envelope import Envelope
from fastlisten.mail.logins.sasl import MECHANISMS
from fastlisten.mail.relay.relay import Relay, relay_of
from fastlisten.mail.relay.relay_delivery import RelayDelivery

if TYPE_CHECKING:
    from fastlisten.handlers.smtp.aiosmtpd.configured_handler import ConfiguredHandler
    from fastlisten.mail.accounts.accounts_file import Accounts
    from fastlisten.mail.accounts.roster import Account

__all__ = ["LmtpHandler", "SmtpHandler"]

#: Seconds between two reads of an accounts file that is being written when the server starts.
_REREAD_INTERVAL = 0.1


class SmtpHandler(Handler):
    """SMTP for one listener (RFC 5321).

    Attributes:
        per_recipient: each recipient of a message gets a reply of its own.
        logs_dialogue: commands and replies are logged.
        role: `mx`, or `submission`, which takes mail from authenticated clients only.
        sender_must_match: authenticated users may send only from addresses of their own.
        max_received: how many Received fields a message may have.
        relay: where mail for other domains goes, None if nowhere.
        dsn_sender: sends the DSNs that senders have asked for.
        counts: the counters of the listener's sessions.
        session_log: their log.

    Raises:
        SettingError: a package is missing, or a file that the relay's settings name.
    """

    # For subclasses, which may be registered under a name of their own.
    name: ClassVar[str] = SMTP.name
    default_port: ClassVar[int] = SMTP.port
    default_tls_port: ClassVar[int] = SMTP.tls_port
    server_speaks_first: ClassVar[bool] = SMTP.server_speaks_first
    starttls: ClassVar[bool] = bool(SMTP.starttls)
    lazy: ClassVar[bool] = True
    options = SMTP.options
    protocol: ClassVar[Literal["smtp", "lmtp"]] = "smtp"
    per_recipient: ClassVar[bool] = False

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        greeting = f"220 {settings.hostname} {self._kind} {settings.greeting}"
        self._values = self.settings.options
        self.greeting = greeting.rstrip().encode() + b"\r\n"
        self._delay: float | None = self._values.get("greeting-delay")
        self._late_greeting = self.greeting
        if self._delay is not None:
            # The native core would greet at once. PregreetDelay does it instead, and for that the
            # connection is made at accept.
            self.greeting = b""
            self.lazy = False  # type: ignore[misc]  # read from the instance
        self.counts: Counts = settings.kept.setdefault("counts", Counts())
        self.session_log = SessionLog(settings.listener, self.counts)
        self.max_received: int = self._values["max-received"]
        self.logs_dialogue: bool = self._values["log-dialogue"]
        self.role = self._find_role()
        must_match = self._values.get("sender-must-match")
        self.sender_must_match: bool = (
            self.role == "submission" if must_match is None else must_match
        )
        self.relay = self._find_relay()
        self.dsn_sender = DsnSender(settings.hostname, self.relay)
        self._trace_fields = TraceFields(settings.hostname, self.protocol)
        self._office: PostOffice | None = None
        self._configured: ConfiguredHandler | None = None
        if settings.options.get("aiosmtpd-handler"):
            from fastlisten.handlers.smtp.aiosmtpd.configured_handler import ConfiguredHandler

            self._configured = ConfiguredHandler(
                settings, self.role, self.session_log, self.logs_dialogue
            )
        elif self.role == "submission" and not passwords.available():
            message = (
                "users cannot log in without the package argon2-cffi: "
                'pip install "fastlisten[auth]"'
            )
            raise SettingError("smtp.role", message)

    @property
    def _kind(self) -> str:
        """The word for the protocol in the greeting."""
        return "LMTP" if self.protocol == "lmtp" else "ESMTP"

    def _find_role(self) -> Role:
        """Return the role that is configured, else that of the port; LMTP clients never log in."""
        if self.protocol == "lmtp":
            return "mx"
        role: Role | None = self._values["role"]
        return role or role_by_port(self.settings.port)

    def _find_relay(self) -> Relay | None:
        if self.protocol == "lmtp":
            return None  # an LMTP client has already decided that the mail is delivered here
        settings = relay_of(self._values, self.settings.hostname)
        return None if settings is None else Relay(settings)

    @functools.cached_property
    def limits(self) -> Limits:
        """The settings of every connection's engine; made for the first connection."""
        settings = self.settings
        return Limits(
            hostname=settings.hostname,
            max_message_size=self._values["max-message-size"],
            max_recipients=self._values["max-recipients"],
            max_errors=self._values["max-errors"],
            starttls=settings.tls is not None and not settings.tls_implicit,
            protocol=self.protocol,
            mechanisms=MECHANISMS if self._takes_logins else (),
            auth_required=self.role == "submission",
            counts=self.counts,
        )

    @property
    def _takes_logins(self) -> bool:
        return self.protocol == "smtp" and passwords.available()

    def refusal(self, reason: Reason) -> bytes:
        """Return the reply to a rejected client (RFC 5321 3.1, RFC 3463)."""
        code, status, text = {
            Reason.LIMIT: (421, "4.3.2", "Too many connections; try again later"),
            Reason.OVERLOAD: (421, "4.3.2", "Server busy; try again later"),
            Reason.RATE: (421, "4.7.0", "Too many connections from your address; try again later"),
            Reason.ADDRESS: (421, "4.7.0", "Too many connections from your address"),
            Reason.DENIED: (554, "5.7.1", "Client host rejected: Access denied"),
        }.get(reason, (421, "4.3.2", "Try again later"))
        return reply(code, status, f"{self.settings.hostname} {text}")

    def farewell(self, reason: Reason) -> bytes:
        """Return the reply with which the server ends a session."""
        status, text = {
            Reason.IDLE: ("4.4.2", "Timeout; closing connection"),
            Reason.FIRST_BYTE: ("4.4.2", "Timeout; closing connection"),
        }.get(reason, ("4.3.2", "Shutting down; try again later"))
        return reply(421, status, f"{self.settings.hostname} {text}")

    def notes(self) -> tuple[str, ...]:
        """Return why no mail can be delivered yet, if that is so."""
        if self._configured is not None:
            return self._configured.notes()
        accounts = self.office.accounts
        if accounts.roster is None:
            if not os.path.exists(accounts.path):
                command = "`fastlisten account add NAME --config FILE`"
                why = f"no mail is accepted until {command} has created an account"
                return (f"{accounts.path} does not exist: {why}",)
            return (f"{accounts.path} cannot be read: mail is deferred until this is fixed",)
        if not accounts.roster.accounts:
            return (f"{accounts.path} has no accounts: all mail will be rejected",)
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection."""
        if self._delay is None:
            return self._protocol(info)
        hostname = self.settings.hostname
        refusal = reply(
            554,
            "5.5.0",
            f"{hostname} Protocol synchronization error: data sent before the greeting",
        )
        return PregreetDelay(
            info,
            self._delay,
            self._late_greeting,
            refusal,
            lambda: self._protocol(info),
            self.session_log,
        )

    def _protocol(self, info: ConnectionInfo) -> asyncio.Protocol:
        """Return the protocol object for a client that has been greeted."""
        if self._configured is not None:
            return self._configured.connection(info)
        return EngineProtocol(MailSession(self, info))

    async def start(self) -> None:
        """Open the post office and read the accounts.

        Raises:
            ValueError: there is no data directory to deliver to.
            SettingError: the postmaster has no account.
        """
        if not self.settings.data_directory:
            raise ValueError(f"the {self.name} handler needs a data directory")
        office = PostOffice.enter(
            self.settings.data_directory, self.settings.extra.get("accounts", "")
        )
        self._office = office
        office.quota = self.settings.extra.get("quota", office.quota)
        try:
            if self._configured is not None:
                await asyncio.to_thread(office.accounts.reload)
                self._configured.start(office)
            else:
                await self._read_accounts(office.accounts)
        except BaseException:
            await self.stop()
            raise

    async def _read_accounts(self, accounts: Accounts) -> None:
        """Read the accounts for the first time.

        Raises:
            SettingError: the postmaster has no account.
        """
        postmaster = self.settings.extra.get("postmaster", "")
        delimiter = self.settings.extra.get("recipient-delimiter", "")
        accounts.appoint(postmaster, self.settings.hostname, delimiter)
        # Thousands of listeners share the accounts, and a thread for each would take a second.
        roster = accounts.roster
        if not accounts.current():
            roster = await asyncio.to_thread(accounts.reload)
        while not (roster is None or roster.appointed or roster.certain):
            # The file may be half written, and the account yet to come.
            await asyncio.sleep(_REREAD_INTERVAL)
            roster = await asyncio.to_thread(accounts.reload)
        if roster is not None and not roster.appointed:
            message = f"server.postmaster: {accounts.path} has no account {postmaster}"
            raise SettingError("server.postmaster", message)

    async def stop(self) -> None:
        """Leave the post office when all current deliveries have ended."""
        self.session_log.close()
        await self.dsn_sender.close()
        if self.relay is not None:
            await self.relay.close()
        if self._configured is not None:
            self._configured.stop()
        if self._office is not None:
            office, self._office = self._office, None
            await asyncio.to_thread(office.leave)

    @property
    def office(self) -> PostOffice:
        """Where local mail is delivered.

        Raises:
            RuntimeError: the handler has not been started.
        """
        if self._office is None:
            raise RuntimeError("the handler has not been started")
        return self._office

    def begin(
        self, envelope: Envelope, owner: LoggingOwner, info: ConnectionInfo, login: Account | None
    ) -> Delivery:
        """Begin the delivery of a message.

        Args:
            envelope: its sender, and what was asked for.
            owner: is called with results that are not available at once.
            info: about the client.
            login: the account that the client has logged in to, as it was then.
        """
        if self.relay is None:
            return MailboxDelivery(
                self.office,
                envelope.sender,
                owner,
                self.counts,
                independent=self.per_recipient,
                size=envelope.size,
            )
        client = (info.peer, info.port)
        return RelayDelivery(self.office, self.relay, envelope, owner, self.counts, login, client)

    def send_dsn(
        self, envelope: Envelope, outcome: Outcome, header: bytes, authenticated: bool
    ) -> None:
        """Send a DSN of success; as `DsnSender.send`."""
        self.dsn_sender.send(self.office, envelope, outcome, header, authenticated)

    def received(
        self, info: ConnectionInfo, engine: SmtpEngine, name: str, cipher: str = ""
    ) -> bytes:
        """Return the Received field of a message; as `TraceFields.received`."""
        return self._trace_fields.received(info, engine, name, cipher)


class LmtpHandler(SmtpHandler):
    """LMTP for one listener (RFC 2033): one reply for each recipient of a message; no relay."""

    name: ClassVar[str] = LMTP.name
    default_port: ClassVar[int] = LMTP.port
    default_tls_port: ClassVar[int] = LMTP.tls_port
    options = LMTP.options
    protocol: ClassVar[Literal["smtp", "lmtp"]] = "lmtp"
    per_recipient: ClassVar[bool] = True
