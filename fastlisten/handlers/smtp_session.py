"""What each SMTP command does to a session: which reply, in which order, with which effect.

Rules of this file: one method per command, called with a whole line; no octets of the stream, no
events but those that a command gives, no answers to them (smtp_engine.py). RFC 5321 is meant where
nothing else is named.

STARTTLS (RFC 3207), where it leaves room:

    without EHLO         503, as Exim does: it is an extension, and extensions need EHLO. (Postfix
                         takes it.)
    in a transaction     taken, and the transaction is over, as in Postfix and Exim: the RFC does
                         not forbid it, and everything is forgotten anyway
    while TLS is active  503: it was not offered (Exim; Postfix says 554)
    input behind it      554 5.5.0 and the end. The client must wait for the 220; what has come
                         before is a plaintext command, put there to be executed as if it had come
                         by TLS (CVE-2011-0411). Exim does the same (a synchronisation error);
                         Postfix drops such input, but has this reply for other commands behind
                         which nothing may be pipelined, and hangs up after it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from fastlisten.handlers import smtp_replies as replies
from fastlisten.handlers.smtp_commands import (
    HTTP_VERBS,
    NOT_HERE,
    Refused,
    parse_client_name,
    parse_mail,
    parse_recipient,
)
from fastlisten.handlers.smtp_events import (
    Event,
    Mail,
    Recipient,
    Reset,
    StartTls,
    Transaction,
)
from fastlisten.handlers.smtp_framing import Framing
from fastlisten.handlers.smtp_replies import Limits

__all__ = ["RESET", "Session", "State"]

RESET = Reset()
_START_TLS = StartTls()


class State(enum.Enum):
    """Where a session is; the drawing at the head of smtp_engine.py shows the ways between."""

    COMMAND = enum.auto()
    CONTENT = enum.auto()
    DISCARD = enum.auto()  # inside a message that will be refused at its end
    SECURING = enum.auto()  # the go-ahead for TLS has been given, the handshake is not done
    CLOSING = enum.auto()  # the last reply has been given, the user has not been told yet
    CLOSED = enum.auto()


class Session(Framing):
    """What is known of a session, and the commands that change it.

    Attributes:
        client_name: what the client called itself by EHLO or HELO, empty before.
        encrypted: the session runs over TLS.
        extended: it said EHLO.
        transaction: the one in progress, or None.
    """

    __slots__ = (
        "_errors",
        "_limits",
        "_refusal",
        "_rejected",
        "_replies",
        "_size",
        "_state",
        "_waiting",
        "client_name",
        "encrypted",
        "extended",
        "transaction",
    )

    def __init__(self, limits: Limits, encrypted: bool = False) -> None:
        super().__init__()
        self._limits = limits
        self._state: State = State.COMMAND
        self._waiting: Event | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._rejected = 0
        self._size = 0
        self._refusal = b""  # what is said at the end of a message that is being discarded
        self.client_name = ""
        self.encrypted = encrypted
        self.extended = False
        self.transaction: Transaction | None = None

    def _execute(self, line: bytes) -> Event | None:
        """Execute a command line.

        Raises:
            Refused: it is not carried out.
        """
        # Spaces at the end are tolerated (4.1.1).
        verb, _, argument = line.rstrip(b" ").partition(b" ")
        verb = verb.upper()
        return _COMMANDS.get(verb, Session._unknown)(self, verb, argument)

    def _refuse(self, answer: bytes) -> None:
        """Reply to a command that is not carried out; hang up after too many 5xx."""
        if answer.startswith(b"5"):
            self._errors += 1
            if self._errors > self._limits.max_errors:
                self._hang_up(self._limits.too_many_errors)
                return
        self._replies.append(answer)

    def _hang_up(self, answer: bytes) -> None:
        """Give the last reply."""
        self._replies.append(answer)
        self._state = State.CLOSING
        self.transaction = None
        self.discard()

    def _reset(self) -> Event | None:
        """End the transaction, if there is one."""
        if self.transaction is None:
            return None
        self.transaction = None
        return RESET

    @property
    def _offers_tls(self) -> bool:
        return self._limits.starttls and not self.encrypted

    # --- commands -----------------------------------------------------------------------------

    def _hello(self, verb: bytes, argument: bytes) -> Event | None:
        self.client_name = parse_client_name(argument)
        self.extended = verb == b"EHLO"
        limits = self._limits
        if not self.extended:
            self._replies.append(limits.helo)
        else:
            self._replies.append(limits.ehlo_encrypted if self.encrypted else limits.ehlo)
        return self._reset()

    def _starttls(self, verb: bytes, argument: bytes) -> Event | None:
        if self.encrypted:
            raise Refused(503, "5.5.1", "TLS is active already")
        if not self._limits.starttls:
            return self._unknown(verb, argument)
        self._no_argument(verb, argument)
        if not self.extended:
            raise Refused(503, "5.5.1", "Say EHLO first")
        if self.buffered:
            self._hang_up(self._limits.too_early)
            return None
        self._waiting = _START_TLS
        return _START_TLS

    def _mail(self, verb: bytes, argument: bytes) -> Event | None:
        if not self.client_name:
            raise Refused(503, "5.5.1", "Say EHLO first")
        if self.transaction is not None:
            raise Refused(503, "5.5.1", "A transaction is in progress")
        event = self._waiting = Mail(
            parse_mail(argument, self.extended, self._limits.max_message_size)
        )
        return event

    def _rcpt(self, verb: bytes, argument: bytes) -> Event | None:
        if self.transaction is None:
            raise Refused(503, "5.5.1", "Say MAIL first")
        mailbox = parse_recipient(argument, self.transaction.smtputf8)
        if len(self.transaction.recipients) >= self._limits.max_recipients:
            self._replies.append(replies.TOO_MANY)
            return None
        event = self._waiting = Recipient(mailbox)
        return event

    def _data(self, verb: bytes, argument: bytes) -> Event | None:
        self._no_argument(verb, argument)
        if self.transaction is None:
            raise Refused(503, "5.5.1", "Say MAIL first")
        if not self.transaction.recipients:
            raise Refused(554, "5.5.1", "No valid recipients")
        self._replies.append(replies.START)
        self._state = State.CONTENT
        self._size = 0
        self.begin_content()
        return None

    def _rset(self, verb: bytes, argument: bytes) -> Event | None:
        self._no_argument(verb, argument)
        self._replies.append(replies.OK)
        return self._reset()

    def _noop(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(replies.OK)
        return None

    def _vrfy(self, verb: bytes, argument: bytes) -> Event | None:
        if not argument:
            raise Refused(501, "5.5.4", "Syntax: VRFY address")
        self._replies.append(replies.NOT_VERIFIED)
        return None

    def _help(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(replies.HELP_STARTTLS if self._offers_tls else replies.HELP)
        return None

    def _quit(self, verb: bytes, argument: bytes) -> Event | None:
        self._no_argument(verb, argument)
        self._hang_up(self._limits.goodbye)
        return None

    def _unknown(self, verb: bytes, argument: bytes) -> Event | None:
        if verb in HTTP_VERBS:
            self._hang_up(self._limits.other_protocol)
        else:
            self._refuse(replies.NOT_IMPLEMENTED if verb in NOT_HERE else replies.UNKNOWN)
        return None

    def _no_argument(self, verb: bytes, argument: bytes) -> None:
        if argument:
            raise Refused(501, "5.5.4", f"{verb.decode()} has no argument")


_COMMANDS: dict[bytes, Callable[[Session, bytes, bytes], Event | None]] = {
    b"EHLO": Session._hello,
    b"HELO": Session._hello,
    b"STARTTLS": Session._starttls,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"HELP": Session._help,
    b"QUIT": Session._quit,
}
