"""The SMTP server as a state machine without I/O: bytes in, events and replies out.

Rules of this file: no sockets, no loop, no clock, no look-ups. The engine never raises for what a
client sends, holds a bounded amount of it, and gives the same events and replies however the
stream is cut into pieces (pieces of a message apart, and input behind STARTTLS: it is refused as
far as it has come, and the rest makes the handshake fail). What the commands do is in
smtp_session.py and extension_commands.py, what answers do in answers.py, where commands, messages
and chunks end in input_buffer.py and chunk_reader.py.

    receive(data)      what came from the client
    next_event()       the next thing its user must know, or None: more input or an answer needed
    accept(), reject() the answer to a StartTls, an Auth, a Response, a Command, a Mail, a Recipient
                       or a final Content
    challenge()        another answer to an Auth or a Response
    answer()           another answer to a final Content, in LMTP: a reply for each recipient
    tls_started()      the handshake is done; what is received from now on came by TLS
    replies()          what is to be written to the client now

While an event waits for its answer nothing further is executed, and input is only kept, so that
the user must stop reading when `buffered` grows.

    COMMAND --DATA--> CONTENT --CRLF.CRLF--> COMMAND --QUIT, 421--> CLOSING --> CLOSED
                         | too large, bare CR or LF: Reset
                         v
                      DISCARD --CRLF.CRLF--> COMMAND (the refusal is given here)

    COMMAND --BDAT--> CHUNK --its octets--> COMMAND
       | out of order,   | bare CR or LF: Reset
       | too large       v
       +-----Reset--> SWALLOW --its octets--> COMMAND (the refusal is given here)

    COMMAND --AUTH, challenged--> DIALOGUE --accepted, rejected, bad response--> COMMAND
                                   ^  | response, challenged
                                   +--+

    COMMAND --STARTTLS, accepted--> SECURING --tls_started()--> COMMAND
                                       | input: nothing is said
                                       v
                                    CLOSING --> CLOSED

From STARTTLS on nothing is kept of what was said in plaintext (RFC 3207 4.2): no name, no user, no
transaction, not an octet of input. Only the counts of errors go on, which the client did not give
but earn.

LMTP (RFC 2033) differs where a message ends: every reply to a whole message is given once for each
accepted RCPT, in their order, duplicates included, also where the engine itself refuses it. A DATA
that is refused is one reply, and so is a chunk that is not the last.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine import replies
from fastlisten.handlers.smtp.engine.answers import Answers
from fastlisten.handlers.smtp.engine.command_syntax import decode_response, named_in
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import (
    Content,
    Event,
    Flush,
    Goodbye,
    Recipient,
    Response,
    Transaction,
)
from fastlisten.handlers.smtp.engine.smtp_session import RESET, SessionState

__all__ = ["Limits", "SmtpEngine"]

#: Replies that gather before they are to be written: bounds the memory that a client's endless
#: pipeline of the cheapest commands takes (the longest reply, to HELP, has about 250 octets).
FLUSH_AT = 64

_FLUSH = Flush()
_GOODBYE = Goodbye()

# CPython 3.11 takes 40 ns to look up a member of an Enum, and every event asks several times.
_COMMAND = SessionState.COMMAND
_CONTENT = SessionState.CONTENT
_DISCARD = SessionState.DISCARD
_CHUNK = SessionState.CHUNK
_SWALLOW = SessionState.SWALLOW
_DIALOGUE = SessionState.DIALOGUE
_SECURING = SessionState.SECURING
_CLOSING = SessionState.CLOSING
_CLOSED = SessionState.CLOSED

_receive = Answers.receive  # what super() looks up, at each piece of input


class SmtpEngine(Answers):
    """One connection's SMTP session, from the server's side, after the greeting."""

    __slots__ = ()

    # --- what the user calls ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        state = self._state
        if state is _COMMAND or state is _CONTENT:
            _receive(self, data)
        elif state is _SECURING:
            if data:
                # Plaintext after the go-ahead. Nothing may be said any more: the client takes
                # what comes now for TLS.
                self._state = _CLOSING
        elif state is not _CLOSING and state is not _CLOSED:
            _receive(self, data)

    @property
    def closed(self) -> bool:
        """The last reply has been given."""
        return self._state is _CLOSING or self._state is _CLOSED

    @property
    def waiting(self) -> bool:
        """An event waits for its answer."""
        return self._waiting is not None

    @property
    def securing(self) -> bool:
        """The go-ahead for TLS has been given; nothing may be received but its handshake."""
        return self._state is _SECURING

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
                if self._position == len(self._buffer):
                    return None
                event = self._next_command()
            elif state is _CONTENT or state is _DISCARD:
                if self._position == len(self._buffer):
                    return None
                event = self._next_content()
            elif state is _CHUNK or state is _SWALLOW:
                event = self._next_chunk()
            elif state is _DIALOGUE:
                event = self._next_response()
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

    def show(self, words: bytes, *, client: bool = False) -> None:
        """Take note of what was said past the engine; here nobody does (smtp/dialogue.py)."""

    # --- what follows from the input ----------------------------------------------------------

    def _next_command(self) -> Event | None:
        """Execute command lines until one gives an event or changes the state."""
        while len(self._replies) < FLUSH_AT:
            event = line = None
            try:
                line = self.next_line()
                if line is None:
                    return None
                event = self._execute(line)
            except Refused as error:
                if self._skipping:  # no line of which anything is believed
                    self.verb = b""
                sender, recipients = named_in(line or b"")
                self._refuse(error.reply, recipients, sender=sender)
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
            event = RESET
        if self.ended:
            self._state = _COMMAND
            self._limits.counts.message("rejected")
            refusal, transaction = self._for_each(self._refusal), self.transaction
            self.transaction = None
            self._refuse(refusal, _recipients_of(transaction), transaction)
        return event

    def _next_chunk(self) -> Event | None:
        """Give what has been received of the chunk, or in SWALLOW drop it."""
        if self._state is _SWALLOW:
            self.skip_octets()
            if not self._left:
                self._state = _COMMAND
                self._refuse(self._refusal, _recipients_of(self._of), self._of)
                self._of = None
            return None
        piece = self.next_octets()
        if self._left and not piece:
            return None
        transaction = self.transaction
        assert transaction is not None
        if transaction.body != "BINARYMIME":
            self.judge(piece)
            if self.bare:
                self._limits.counts.message("rejected")
                return self._refuse_chunk(self._for_each_if_final(replies.BARE))
        if self._left:
            return Content(piece, False)
        self._state = _COMMAND
        if self._final:
            event = self._waiting = Content(piece, True)
            return event
        self._replies.append(replies.OK)
        return Content(piece, False) if piece else None

    def _next_response(self) -> Event | None:
        """Give what the client says to a challenge."""
        if len(self._replies) >= FLUSH_AT:
            return _FLUSH
        try:
            line = self.next_response()
            if line is None:
                return None
            if line == b"*":
                raise Refused(501, "5.7.0", "Authentication aborted")
            event = self._waiting = Response(decode_response(line))
        except Refused as error:
            self._state = _COMMAND
            self._refuse(error.reply)
            return Response(None)
        return event


def _recipients_of(transaction: Transaction | None) -> tuple[Recipient, ...]:
    return () if transaction is None else tuple(transaction.recipients)
