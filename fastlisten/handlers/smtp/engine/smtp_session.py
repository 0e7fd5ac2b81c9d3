"""What the commands of RFC 5321 do to a session: which reply, in which order, with which effect.

Rules of this file: one method per command, called with a whole line; no octets of the stream, no
events but those that a command gives, no answers to them (engine.py). What came after RFC
5321 is in extension_commands.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NoReturn

from fastlisten.handlers.smtp.engine import replies
from fastlisten.handlers.smtp.engine.chunk_reader import Chunks
from fastlisten.handlers.smtp.engine.command_syntax import (
    parse_client_name,
    parse_mail,
    parse_recipient,
)
from fastlisten.handlers.smtp.engine.reasons import reason_of
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import (
    Event,
    Mail,
    Recipient,
    Refusal,
    Reset,
    Transaction,
)
from fastlisten.handlers.smtp.engine.verbs import HTTP_VERBS, KNOWN, NOT_HERE

__all__ = ["RESET", "Method", "Session", "SessionState"]

RESET = Reset()

#: What carries a command out: a method, called with the verb in upper case and what follows it.
Method = Callable[[Any, bytes, bytes], Event | None]


#: The white space of RFC 5234 (WSP).
_WHITE_SPACE = b" \t"

#: Refusals that are kept until somebody asks for them: more than there are between two batches of
#: replies, but for messages of LMTP with more recipients than that.
_MOST_REFUSALS = 256


class SessionState(enum.Enum):
    """Where a session is; the drawing at the head of engine.py shows the ways between."""

    COMMAND = enum.auto()
    CONTENT = enum.auto()
    DISCARD = enum.auto()  # inside a message that will be refused at its end
    CHUNK = enum.auto()  # inside a chunk of a message
    SWALLOW = enum.auto()  # inside a chunk that will be refused at its end
    DIALOGUE = enum.auto()  # the client is to say something to a challenge
    SECURING = enum.auto()  # the go-ahead for TLS has been given, the handshake is not done
    CLOSING = enum.auto()  # the last reply has been given, the user has not been told yet
    CLOSED = enum.auto()


class Session(Chunks):
    """What is known of a session, and the commands that change it.

    Attributes:
        authenticated: AUTH has succeeded.
        client_name: what the client called itself by EHLO or HELO, empty before.
        encrypted: the session runs over TLS.
        extended: it said EHLO.
        refusals: the negative replies that nobody has asked for yet (`take_refusals`).
        refused: negative replies, all of them.
        taken: messages that were accepted.
        transaction: the one in progress, or None.
        verb: of the command that was executed last, empty for what is none.
    """

    __slots__ = (
        "_commands",
        "_errors",
        "_limits",
        "_lmtp",
        "_locked",
        "_of",
        "_refusal",
        "_rejected",
        "_replies",
        "_size",
        "_state",
        "_waiting",
        "authenticated",
        "client_name",
        "encrypted",
        "extended",
        "refusals",
        "refused",
        "taken",
        "transaction",
        "verb",
    )

    def __init__(self, limits: Limits, encrypted: bool = False) -> None:
        super().__init__()
        self._limits = limits
        self._commands: dict[bytes, Method] = limits.commands or self._fill(limits)
        self._lmtp = limits.protocol == "lmtp"
        self._locked = limits.auth_required  # nothing can be sent before AUTH
        self._state: SessionState = SessionState.COMMAND
        self._waiting: Event | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._rejected = 0
        self._size = 0
        self._refusal = b""  # what is said at the end of a message or chunk that is dropped
        self._of: Transaction | None = None  # whose message or chunk that is
        self.authenticated = False
        self.client_name = ""
        self.encrypted = encrypted
        self.extended = False
        self.refusals: list[Refusal] | None = None
        self.refused = 0
        self.taken = 0
        self.transaction: Transaction | None = None
        self.verb = b""

    @property
    def protocol(self) -> str:
        """What is spoken, as RFC 5321 and 3848 name it without their letters for TLS and AUTH."""
        return "LMTP" if self._lmtp else "ESMTP" if self.extended else "SMTP"

    def _fill(self, limits: Limits) -> dict[bytes, Method]:
        """Find what each verb does, for all sessions with the same limits."""
        raise NotImplementedError

    def _execute(self, line: bytes) -> Event | None:
        """Execute a command line.

        Raises:
            Refused: it is not carried out.
        """
        # White space at the end is tolerated (4.1.1). So are more spaces than one before the
        # argument, as everywhere; a tab there is not.
        verb, _, argument = line.rstrip(_WHITE_SPACE).partition(b" ")
        if argument[:1] == b" ":
            argument = argument.lstrip(b" ")
        verb = verb.upper()
        self.verb = KNOWN.get(verb, b"")
        return self._commands.get(verb, _unknown)(self, verb, argument)

    def _refuse(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Reply to a command that is not carried out; hang up after too many 5xx.

        Args:
            answer: the complete reply.
            recipients: whom it is about.
            transaction: which it is about, if not the one in progress.
            sender: whom it is about, if not the sender of that.
        """
        if answer.startswith(b"5"):
            self._errors += 1
            if self._errors > self._limits.max_errors:
                self._hang_up(self._limits.too_many_errors, recipients, transaction, sender)
                return
        self._note(answer, recipients, transaction, sender)
        self._replies.append(answer)

    def _note(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Keep a negative reply for whoever logs it, and count it; as in `_refuse`."""
        of = transaction or self.transaction
        reason = reason_of(answer, self.verb)
        # In LMTP a message has a reply for each recipient.
        times = max(1, len(recipients)) if self._lmtp else 1
        self.refused += times
        self._limits.counts.rejection(answer, reason, times)
        if sender is None and of is not None:
            sender = of.sender
        refusal = Refusal(answer, self.verb, reason, sender, recipients)
        if self.refusals is None:
            self.refusals = [refusal]
        elif len(self.refusals) < _MOST_REFUSALS:
            self.refusals.append(refusal)

    def note(self, answer: bytes) -> None:
        """Keep and count a negative reply that the user has given by itself."""
        self._note(answer)

    def take_refusals(self) -> list[Refusal]:
        """Return the negative replies since it was called last."""
        refusals, self.refusals = self.refusals, None
        return refusals or []

    def _hang_up(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Give the last reply; the rest as in `_refuse`."""
        if not answer.startswith(b"2"):
            self._note(answer, recipients, transaction, sender)
        self._replies.append(answer)
        self._state = SessionState.CLOSING
        self.transaction = None
        self.discard()

    def _reset(self) -> Event | None:
        """End the transaction, if there is one."""
        if self.transaction is None:
            return None
        self.transaction = None
        return RESET

    def _for_each(self, answer: bytes) -> bytes:
        """Return the reply to a whole message: in LMTP it is given for each recipient."""
        if self._lmtp and self.transaction is not None:
            return answer * len(self.transaction.recipients)
        return answer

    def _out_of_order(self, first: str) -> Refused:
        """Return the verdict on a command that another must precede."""
        if self._locked:
            if self._limits.offers_tls(self.encrypted):
                return Refused(530, "5.7.0", "Authentication required; use STARTTLS, then AUTH")
            return Refused(530, "5.7.0", "Authentication required")
        return Refused(503, "5.5.1", f"Need {first} command")

    def _no_recipients(self) -> Refused:
        """Return the verdict on a message to nobody (RFC 2033 4.2 leaves LMTP no choice)."""
        return Refused(503 if self._lmtp else 554, "5.5.1", "No valid recipients")

    # --- commands -----------------------------------------------------------------------------

    def _hello_reply(self, verb: bytes, argument: bytes) -> bytes:
        parse_client_name(argument)
        return self._welcome(verb)

    def _hello(self, verb: bytes, argument: bytes) -> Event | None:
        self.client_name = parse_client_name(argument)
        self.extended = verb != b"HELO"
        self._replies.append(self._welcome(verb))
        return self._reset()

    def _welcome(self, verb: bytes) -> bytes:
        limits = self._limits
        if verb == b"HELO":
            return limits.helo
        return limits.ehlo_encrypted if self.encrypted else limits.ehlo

    def _mail(self, verb: bytes, argument: bytes) -> Event | None:
        if not self.client_name:
            raise Refused(503, "5.5.1", f"Send {'LHLO' if self._lmtp else 'EHLO'} first")
        if self._locked:
            raise self._out_of_order("")
        if self.transaction is not None:
            raise Refused(503, "5.5.1", "Nested MAIL command")
        event = self._waiting = Mail(
            parse_mail(argument, self.extended, self._limits, self.encrypted)
        )
        return event

    def _rcpt(self, verb: bytes, argument: bytes) -> Event | None:
        transaction = self.transaction
        if transaction is None:
            raise self._out_of_order("MAIL")
        if self.chunked:
            raise Refused(503, "5.5.1", "RCPT after BDAT")
        event = parse_recipient(argument, self.extended, transaction.smtputf8)
        if len(transaction.recipients) >= self._limits.max_recipients:
            self._note(replies.TOO_MANY, (event,))
            self._replies.append(replies.TOO_MANY)
            return None
        self._waiting = event
        return event

    def _data(self, verb: bytes, argument: bytes) -> Event | None:
        if argument:
            self._no_argument(verb)
        transaction = self.transaction
        if transaction is None:
            raise self._out_of_order("MAIL")
        if not transaction.recipients:
            raise self._no_recipients()
        if self.chunked or transaction.body == "BINARYMIME":
            # RFC 3030 2 and 3. The transaction goes on.
            why = "DATA after BDAT" if self.chunked else "BODY=BINARYMIME requires BDAT"
            raise Refused(503, "5.5.1", why)
        self._replies.append(replies.START)
        self._state = SessionState.CONTENT
        self._size = 0
        self.begin_content()
        return None

    def _rset_reply(self, verb: bytes, argument: bytes) -> bytes:
        if argument:
            self._no_argument(verb)
        return replies.OK

    def _rset(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(self._rset_reply(verb, argument))
        return self._reset()

    def _noop_reply(self, verb: bytes, argument: bytes) -> bytes:
        return replies.OK

    def _noop(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(replies.OK)
        return None

    def _vrfy_reply(self, verb: bytes, argument: bytes) -> bytes:
        if not argument:
            raise Refused(501, "5.5.4", "Syntax: VRFY address")
        if self._locked:
            raise self._out_of_order("")
        return replies.NOT_VERIFIED

    def _vrfy(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(self._vrfy_reply(verb, argument))
        return None

    def _help_reply(self, verb: bytes, argument: bytes) -> bytes:
        return self._limits.help_encrypted if self.encrypted else self._limits.help

    def _help(self, verb: bytes, argument: bytes) -> Event | None:
        self._replies.append(self._help_reply(verb, argument))
        return None

    def _quit_reply(self, verb: bytes, argument: bytes) -> bytes:
        if argument:
            self._no_argument(verb)
        return self._limits.goodbye

    def _quit(self, verb: bytes, argument: bytes) -> Event | None:
        self._hang_up(self._quit_reply(verb, argument))
        return None

    def _unknown(self, verb: bytes, argument: bytes) -> Event | None:
        if verb in HTTP_VERBS:
            self._hang_up(self._limits.other_protocol)
        else:
            self._refuse(replies.NOT_IMPLEMENTED if verb in NOT_HERE else replies.UNKNOWN)
        return None

    def _no_argument(self, verb: bytes) -> NoReturn:
        raise Refused(501, "5.5.4", f"Syntax: {verb.decode()} (no parameters allowed)")


_unknown = Session._unknown
