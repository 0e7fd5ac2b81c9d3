"""The SMTP server as a state machine without I/O: bytes in, events and replies out.

Rules of this file: the methods that the engine's user calls, and the order in which input is
executed. No sockets, no loop, no clock, no look-ups. The engine never raises because of what a
client sends, and keeps a bounded amount of it. Events and replies do not depend on how the input is
split, with two exceptions: the pieces of a message, and input after STARTTLS (what has arrived is
refused, the rest makes the handshake fail).

    receive(data)      takes input from the client
    next_event()       returns the next event, or None if more input or an answer is needed
    accept(), reject() answer a StartTls, an Auth, a Response, a Command, a Mail, a Recipient or a
                       final Content
    challenge()        answers an Auth or a Response with a challenge
    answer()           answers a final Content in LMTP, with a reply for each recipient
    tls_started()      the handshake is done; input from now on was encrypted
    replies()          returns the output for the client

While an event waits for its answer no further command is executed and input is only stored, so the
user must stop reading when `buffered` grows.

The parts of the engine:

    SmtpEngine ── Session ─┬─ InputBuffer        where command lines and messages end
        │     smtp_session │  input_buffer
        │                  ├─ ChunkReader        where chunks end
        │                  │  chunk_reader
        │                  └─ SessionState       the states, drawn: session_states
        │
        ├─ command_table     verb -> function of base_commands or extension_commands,
        │                    which read their arguments by command_syntax and parameters
        ├─ message_input     messages, chunks, responses
        └─ answers           kind of event -> function

STARTTLS discards everything that the client sent in plaintext (RFC 3207 4.2): its name, its user,
its transaction, and all input. Only the counts of errors are kept.

LMTP (RFC 2033) differs at the end of a message: there is one reply for each accepted RCPT, in their
order, duplicates included, also if the engine itself refuses the message. A refused DATA gets one
reply, and so does a chunk that is not the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.handlers.smtp.engine import answers, command_table, message_input
from fastlisten.handlers.smtp.engine.command_syntax import named_in
from fastlisten.handlers.smtp.engine.command_table import commands_of
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.session_states import SessionState
from fastlisten.handlers.smtp.engine.smtp_events import (
    Event,
    Flush,
    Goodbye,
    Refusal,
    Transaction,
)
from fastlisten.handlers.smtp.engine.smtp_session import Session

__all__ = ["Limits", "SmtpEngine"]

#: Replies that gather before they are to be written: bounds the memory that a client's endless
#: pipeline of the cheapest commands takes (the longest reply, to HELP, has about 250 octets).
FLUSH_AT = 64

_FLUSH = Flush()
_GOODBYE = Goodbye()

# CPython 3.11 takes 40 ns to look up a member of an enum, and every event asks several times.
_COMMAND = SessionState.COMMAND
_CONTENT = SessionState.CONTENT
_DISCARD = SessionState.DISCARD
_CHUNK = SessionState.CHUNK
_SWALLOW = SessionState.SWALLOW
_DIALOGUE = SessionState.DIALOGUE
_SECURING = SessionState.SECURING
_CLOSING = SessionState.CLOSING
_CLOSED = SessionState.CLOSED


class SmtpEngine:
    """One connection's SMTP session, from the server's side, after the greeting.

    Args:
        limits: what holds for the listener.
        encrypted: the session runs over TLS from the beginning.
        source: takes the input apart, if it is not to be an `InputBuffer`.
    """

    __slots__ = ("_commands", "_input", "_session")

    def __init__(
        self, limits: Limits, encrypted: bool = False, source: InputBuffer | None = None
    ) -> None:
        self._input = InputBuffer() if source is None else source
        self._session = Session(limits, self._input, encrypted)
        self._commands = commands_of(limits)

    # --- input and output ---------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        state = self._session.state
        if state is _COMMAND or state is _CONTENT:
            self._input.receive(data)
        elif state is _SECURING:
            if data:
                # Plaintext after the go-ahead. Nothing may be said any more: the client takes
                # what comes now for TLS.
                self._session.enter(_CLOSING)
        elif state is not _CLOSING and state is not _CLOSED:
            self._input.receive(data)

    def replies(self) -> bytes:
        """Return what is to be written to the client, and forget it."""
        unsent = self._session.unsent
        if not unsent:
            return b""
        data = b"".join(unsent)
        unsent.clear()
        return data

    def next_event(self) -> Event | None:
        """Execute what has been received up to the next event.

        Returns:
            The event; or None when more input is needed, or an answer to an earlier event.
        """
        session = self._session
        while session.waiting is None:
            state = session.state
            if state is _COMMAND:
                if self._input.empty():
                    return None
                event = self._next_command()
            elif state is _CONTENT or state is _DISCARD:
                if self._input.empty():
                    return None
                event = message_input.next_content(session)
            elif state is _CHUNK or state is _SWALLOW:
                event = message_input.next_chunk(session)
            elif state is _DIALOGUE:
                if len(session.unsent) >= FLUSH_AT:
                    return _FLUSH
                event = message_input.next_response(session)
            elif state is _CLOSING:
                session.enter(_CLOSED)
                return _GOODBYE
            else:
                return None
            if event is not None:
                return event
            if session.state is state:
                return None
        return None

    def _next_command(self) -> Event | None:
        """Execute command lines until one gives an event or changes the state."""
        session = self._session
        while len(session.unsent) < FLUSH_AT:
            event = line = None
            try:
                line = self._input.next_line()
                if line is None:
                    return None
                event = command_table.execute(session, self._commands, line)
            except Refused as error:
                if self._input.skipping:  # no line of which anything is believed
                    session.verb = b""
                sender, recipients = named_in(line or b"")
                session.refuse(error.reply, recipients, None, sender)
            if event is not None or session.state is not _COMMAND:
                return event
        return _FLUSH

    def show(self, words: bytes, *, client: bool = False) -> None:
        """Called with replies that bypass the engine; `DialogueEngine` logs them."""

    # --- answers ------------------------------------------------------------------------------

    def accept(self, answer: bytes = b"") -> None:
        """Answer the waiting event with yes.

        After the answer to a StartTls the transaction is over, and `securing` is true, unless
        more was received meanwhile; then the session is over. After the answer to an Auth or a
        Response `authenticated` is true.

        Args:
            answer: the complete reply, empty for the usual words. In LMTP a reply to a final
                Content is given for each recipient.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        answers.accept(self._session, answer)

    def reject(self, answer: bytes) -> None:
        """Answer the waiting event with no.

        Args:
            answer: the complete reply, 4xx or 5xx; after 421 the connection is to be closed. In
                LMTP a reply to a final Content is given for each recipient.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        answers.reject(self._session, answer)

    def challenge(self, data: bytes) -> None:
        """Answer the waiting Auth or Response with a question; a Response will follow.

        Args:
            data: what the client is asked, not encoded yet.

        Raises:
            RuntimeError: no Auth and no Response waits for an answer.
        """
        answers.challenge(self._session, data)

    def answer(self, replies: Sequence[bytes]) -> None:
        """Answer the waiting final Content, in LMTP for each recipient by itself.

        Args:
            replies: one complete reply for each of the transaction's recipients, in their order;
                in SMTP one for all. If one is 421 the connection is to be closed.

        Raises:
            RuntimeError: no final Content waits for an answer.
            ValueError: there are not as many replies as needed.
        """
        answers.answer(self._session, replies)

    def tls_started(self) -> None:
        """Begin anew, over TLS.

        Raises:
            RuntimeError: the engine did not give the go-ahead, or plaintext came after it.
        """
        session = self._session
        if session.state is not _SECURING:
            raise RuntimeError("not waiting for a handshake")
        session.enter(_COMMAND)
        session.encrypted = True

    # --- what is known of the session ---------------------------------------------------------

    @property
    def authenticated(self) -> bool:
        """AUTH has succeeded."""
        return self._session.authenticated

    @property
    def buffered(self) -> int:
        """Octets received and not yet used up."""
        return self._input.buffered

    @property
    def client_name(self) -> str:
        """What the client called itself by EHLO or HELO, empty before."""
        return self._session.client_name

    @property
    def closed(self) -> bool:
        """The last reply has been given."""
        return self._session.state is _CLOSING or self._session.state is _CLOSED

    @property
    def encrypted(self) -> bool:
        """The session runs over TLS."""
        return self._session.encrypted

    @encrypted.setter
    def encrypted(self, value: bool) -> None:
        self._session.encrypted = value

    @property
    def extended(self) -> bool:
        """The client said EHLO."""
        return self._session.extended

    @property
    def protocol(self) -> str:
        """What is spoken, as RFC 5321 and 3848 name it without their letters for TLS and AUTH."""
        return self._session.protocol

    @property
    def refusals(self) -> list[Refusal] | None:
        """The negative replies that `take_refusals` has not returned yet."""
        return self._session.refusals

    @property
    def refused(self) -> int:
        """Negative replies, all of them."""
        return self._session.refused

    @property
    def securing(self) -> bool:
        """The go-ahead for TLS has been given; nothing may be received but its handshake."""
        return self._session.state is _SECURING

    @property
    def taken(self) -> int:
        """Messages that were accepted."""
        return self._session.taken

    @property
    def transaction(self) -> Transaction | None:
        """The one in progress, or None."""
        return self._session.transaction

    @property
    def verb(self) -> bytes:
        """The command that was executed last, empty for what is none."""
        return self._session.verb

    @property
    def waiting(self) -> bool:
        """An event waits for its answer."""
        return self._session.waiting is not None

    def note(self, answer: bytes) -> None:
        """Keep and count a negative reply that the user has given by itself."""
        self._session.note(answer)

    def take_refusals(self) -> list[Refusal]:
        """Return the negative replies since it was called last."""
        return self._session.take_refusals()
