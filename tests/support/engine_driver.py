"""A driver for the SMTP engine without a connection: it answers events at once and records them."""

from __future__ import annotations

from typing import Any

from fastlisten.handlers.smtp.auth_exchange import refusal_of
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import OK, reply
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Command,
    Content,
    Flush,
    Goodbye,
    Mail,
    Recipient,
    Reset,
    Response,
    StartTls,
)
from fastlisten.mail.logins.sasl import Credentials, SaslError, mechanism
from support.smtp_harness import HOSTNAME

NOBODY = reply(550, "5.1.1", "No such mailbox here")
LATER = reply(452, "4.2.2", "Mailbox full")
WRONG = reply(535, "5.7.8", "Wrong name or password")

#: The account that `EngineDriver` accepts.
NAME, PASSWORD = "alice@example.org", "correct horse"


def chunk(data: bytes, last: bool = False) -> bytes:
    """Return a BDAT command with its octets."""
    return b"BDAT %d%b\r\n%b" % (len(data), b" LAST" if last else b"", data)


def message(pieces: list[bytes]) -> bytes:
    """Return a message as BDAT commands, one per piece."""
    *others, last = pieces
    return b"".join(map(chunk, others)) + chunk(last, True)


class EngineDriver:
    """Feeds an engine and answers its events: recipients that begin with "no" are unknown.

    In LMTP, delivery fails for recipients that begin with "full". Observed commands are rejected
    if their argument begins with "no".

    Attributes:
        events: all events; pieces of a message are joined, and dropped by a Reset.
        parameters: the parameters of each MAIL and RCPT, as written and as parsed.
        replies: all replies.
    """

    def __init__(self, encrypted: bool = False, **limits: Any) -> None:
        self.engine = SmtpEngine(Limits(HOSTNAME, **limits), encrypted)
        self.lmtp = limits.get("protocol") == "lmtp"
        self.events: list[tuple[Any, ...]] = []
        self.parameters: list[tuple[Any, ...]] = []
        self.replies = b""
        self._content = b""
        self._dialogue: Any = None

    def feed(self, *chunks: bytes) -> bytes:
        """Feed octets; return the replies to them."""
        before = len(self.replies)
        for chunk in chunks:
            self.engine.receive(chunk)
            while (event := self.engine.next_event()) is not None:
                self._handle(event)
            self.replies += self.engine.replies()
        return self.replies[before:]

    def _handle(self, event: Any) -> None:
        if isinstance(event, Mail):
            transaction = event.transaction
            self.events.append(
                (
                    "mail",
                    transaction.sender,
                    transaction.size,
                    transaction.body,
                    transaction.smtputf8,
                )
            )
            self.parameters.append(
                (transaction.words, transaction.ret, transaction.envid, transaction.auth)
            )
            self.engine.accept()
        elif isinstance(event, Recipient):
            self.parameters.append((event.words, event.notify, event.orcpt))
            known = not event.mailbox.local.startswith("no")
            self.events.append(("rcpt", event.mailbox, known))
            if known:
                self.engine.accept()
            else:
                self.engine.reject(NOBODY)
        elif isinstance(event, Content):
            self._content += event.data
            if event.final:
                self.events.append(("message", self._content))
                self._content = b""
                self._answer_message()
        elif isinstance(event, Auth | Response):
            self._authenticate(event)
        elif isinstance(event, Command):
            self.events.append(("command", event.verb, event.argument))
            if event.argument.startswith("no"):
                self.engine.reject(reply(550, "5.7.1", "Not you"))
            else:
                self.engine.accept()
                if self.engine.transaction is None:
                    self._content = b""
        elif isinstance(event, StartTls):
            self.events.append(("starttls",))
            self.engine.accept()
            self._content = b""
        elif isinstance(event, Reset):
            self._content = b""
            self.events.append(("reset",))
        elif isinstance(event, Goodbye):
            self.events.append(("goodbye",))
        else:
            assert isinstance(event, Flush)
            self.replies += self.engine.replies()

    def _answer_message(self) -> None:
        transaction = self.engine.transaction
        assert transaction is not None
        if self.lmtp:
            self.engine.answer(
                [
                    LATER if recipient.mailbox.local.startswith("full") else OK
                    for recipient in transaction.recipients
                ]
            )
        else:
            self.engine.accept()

    def _authenticate(self, event: Auth | Response) -> None:
        if isinstance(event, Auth):
            self.events.append(("auth", event.mechanism))
            self._dialogue, said = mechanism(event.mechanism), event.response
        else:
            said = event.data
            if said is None:
                self.events.append(("auth aborted",))
                return
        try:
            step = self._dialogue.step(said)
        except SaslError as error:
            self.engine.reject(refusal_of(error))
            return
        if isinstance(step, bytes):
            self.engine.challenge(step)
            return
        right = step == Credentials(NAME, PASSWORD)
        self.events.append(("login", step.name, right))
        if right:
            self.engine.accept()
        else:
            self.engine.reject(WRONG)

    @property
    def messages(self) -> list[bytes]:
        """The messages that were completed."""
        return [event[1] for event in self.events if event[0] == "message"]
