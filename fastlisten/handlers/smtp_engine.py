"""The SMTP server as a state machine without I/O: bytes in, events and replies out.

Rules of this file: no sockets, no loop, no clock, no look-ups. The engine never raises for what a
client sends, holds a bounded amount of it, and gives the same events and replies however the
stream is cut into pieces (pieces of a message apart).

    receive(data)      what came from the client
    next_event()       the next thing its user must know, or None: more input or an answer needed
    accept(), reject() the answer to a Mail, a Recipient or a final Content
    replies()          what is to be written to the client now

While an event waits for its answer nothing further is executed, and input is only kept, so that
the user must stop reading when `buffered` grows.

    COMMAND --DATA--> CONTENT --CRLF.CRLF--> COMMAND --QUIT, 421--> CLOSING --> CLOSED
                         | too large, bare CR or LF: Reset
                         v
                      DISCARD --CRLF.CRLF--> COMMAND (the refusal is given here)
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
    Content,
    Event,
    Flush,
    Goodbye,
    Mail,
    Recipient,
    Reset,
    Transaction,
)
from fastlisten.handlers.smtp_framing import Framing
from fastlisten.handlers.smtp_replies import Limits

__all__ = ["Engine", "Limits"]

#: Replies that gather before they are to be written: bounds the memory that a client's endless
#: pipeline of the cheapest commands takes (the longest reply, to HELP, has about 150 octets).
FLUSH_AT = 64

_FLUSH = Flush()
_RESET = Reset()
_GOODBYE = Goodbye()


class _State(enum.Enum):
    COMMAND = enum.auto()
    CONTENT = enum.auto()
    DISCARD = enum.auto()  # inside a message that will be refused at its end
    CLOSING = enum.auto()  # the last reply has been given, the user has not been told yet
    CLOSED = enum.auto()


# CPython 3.11 takes 40 ns to look up a member of an Enum, and every event asks several times.
_COMMAND = _State.COMMAND
_CONTENT = _State.CONTENT
_DISCARD = _State.DISCARD
_CLOSING = _State.CLOSING
_CLOSED = _State.CLOSED


class Engine(Framing):
    """One connection's SMTP session, from the server's side, after the greeting.

    Attributes:
        client_name: what the client called itself by EHLO or HELO, empty before.
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
        "extended",
        "transaction",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._state: _State = _COMMAND
        self._waiting: Event | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._rejected = 0
        self._size = 0
        self._refusal = b""  # what is said at the end of a message that is being discarded
        self.client_name = ""
        self.extended = False
        self.transaction: Transaction | None = None

    # --- what the user calls ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._state is not _CLOSING and self._state is not _CLOSED:
            super().receive(data)

    @property
    def closed(self) -> bool:
        """The last reply has been given."""
        return self._state is _CLOSING or self._state is _CLOSED

    @property
    def waiting(self) -> bool:
        """An event waits for its answer."""
        return self._waiting is not None

    def replies(self) -> bytes:
        """Return what is to be written to the client, and forget it."""
        if not self._replies:
            return b""
        data = b"".join(self._replies)
        self._replies.clear()
        return data

    def next_event(self) -> Event | None:
        """Execute what has been received up to the next event.

        Returns:
            The event; or None when more input is needed, or an answer to an earlier event.
        """
        while self._waiting is None:
            state = self._state
            if state is _COMMAND:
                event = self._next_command()
            elif state is _CONTENT or state is _DISCARD:
                event = self._next_content()
            elif state is _CLOSING:
                self._state = _CLOSED
                return _GOODBYE
            else:
                return None
            if event is not None:
                return event
            if self._state is state:
                return None
        return None

    def accept(self, answer: bytes = b"") -> None:
        """Answer the waiting event with yes.

        Args:
            answer: the complete reply, empty for the usual words.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        event, self._waiting = self._waiting, None
        if isinstance(event, Recipient):
            assert self.transaction is not None
            self.transaction.recipients.append(event.mailbox)
            self._replies.append(answer or replies.RECIPIENT_OK)
        elif isinstance(event, Mail):
            self.transaction = event.transaction
            self._replies.append(answer or replies.SENDER_OK)
        elif isinstance(event, Content):
            self.transaction = None
            self._rejected = 0
            self._replies.append(answer or replies.OK)
        else:
            raise RuntimeError("no event waits for an answer")

    def reject(self, answer: bytes) -> None:
        """Answer the waiting event with no.

        Args:
            answer: the complete reply, 4xx or 5xx; after 421 the connection is to be closed.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        event, self._waiting = self._waiting, None
        if event is None:
            raise RuntimeError("no event waits for an answer")
        if isinstance(event, Content):
            self.transaction = None
        if answer.startswith(b"421"):
            self._hang_up(answer)
        elif isinstance(event, Recipient) and answer.startswith(b"5"):
            self._rejected += 1
            if self._rejected > self._limits.max_recipients:
                self._hang_up(self._limits.too_many_rejected)
            else:
                self._replies.append(answer)
        else:
            self._refuse(answer)

    # --- what follows from the input ----------------------------------------------------------

    def _next_command(self) -> Event | None:
        """Execute command lines until one gives an event or changes the state."""
        while len(self._replies) < FLUSH_AT:
            event = None
            try:
                line = self.next_line()
                if line is None:
                    return None
                # Spaces at the end are tolerated (RFC 5321 4.1.1).
                verb, _, argument = line.rstrip(b" ").partition(b" ")
                verb = verb.upper()
                event = _EXECUTE.get(verb, Engine._unknown)(self, verb, argument)
            except Refused as error:
                self._refuse(error.reply)
            if event is not None or self._state is not _COMMAND:
                return event
        return _FLUSH

    def _next_content(self) -> Event | None:
        """Give what has been received of the message, or in DISCARD drop it."""
        piece = self.next_piece()
        if piece is None:
            return None
        event: Event | None = None
        if self._state is _DISCARD:
            if self.bare:
                self._refusal = replies.BARE  # graver than its size, wherever it stands
        else:
            self._size += len(piece)
            if self.bare:
                self._refusal = replies.BARE
            elif self._size > self._limits.max_message_size:
                self._refusal = self._limits.too_large
            else:
                event = Content(piece, self.ended)
                if self.ended:
                    self._state = _COMMAND
                    self._waiting = event
                return event
            self._state = _DISCARD
            event = _RESET
        if self.ended:
            self._state = _COMMAND
            self.transaction = None
            self._refuse(self._refusal)
        return event

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
        self._state = _CLOSING
        self.transaction = None
        self.discard()

    # --- commands -----------------------------------------------------------------------------

    def _reset(self) -> Event | None:
        """End the transaction, if there is one."""
        if self.transaction is None:
            return None
        self.transaction = None
        return _RESET

    def _hello(self, verb: bytes, argument: bytes) -> Event | None:
        self.client_name = parse_client_name(argument)
        self.extended = verb == b"EHLO"
        self._replies.append(self._limits.ehlo if self.extended else self._limits.helo)
        return self._reset()

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
        self._state = _CONTENT
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
        self._replies.append(replies.HELP)
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


_EXECUTE: dict[bytes, Callable[[Engine, bytes, bytes], Event | None]] = {
    b"EHLO": Engine._hello,
    b"HELO": Engine._hello,
    b"MAIL": Engine._mail,
    b"RCPT": Engine._rcpt,
    b"DATA": Engine._data,
    b"RSET": Engine._rset,
    b"NOOP": Engine._noop,
    b"VRFY": Engine._vrfy,
    b"HELP": Engine._help,
    b"QUIT": Engine._quit,
}
