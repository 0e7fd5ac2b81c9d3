"""The SMTP server as a state machine without I/O: bytes in, events and replies out.

Rules of this file: no sockets, no loop, no clock, no look-ups. The engine never raises for what a
client sends, holds a bounded amount of it, and gives the same events and replies however the
stream is cut into pieces (pieces of a message apart, and input behind STARTTLS: it is refused as
far as it has come, and the rest makes the handshake fail). What the commands do is in
smtp_session.py, where they end in smtp_framing.py.

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

import binascii
from collections.abc import Sequence

from fastlisten.handlers import smtp_replies as replies
from fastlisten.handlers.smtp_commands import decode_response
from fastlisten.handlers.smtp_events import (
    Auth,
    Command,
    Content,
    Event,
    Flush,
    Goodbye,
    Mail,
    Recipient,
    Response,
    StartTls,
)
from fastlisten.handlers.smtp_extensions import Extensions
from fastlisten.handlers.smtp_refusal import Refused
from fastlisten.handlers.smtp_replies import Limits
from fastlisten.handlers.smtp_session import RESET, State

__all__ = ["Engine", "Limits"]

#: Replies that gather before they are to be written: bounds the memory that a client's endless
#: pipeline of the cheapest commands takes (the longest reply, to HELP, has about 150 octets).
FLUSH_AT = 64

_FLUSH = Flush()
_GOODBYE = Goodbye()

# CPython 3.11 takes 40 ns to look up a member of an Enum, and every event asks several times.
_COMMAND = State.COMMAND
_CONTENT = State.CONTENT
_DISCARD = State.DISCARD
_CHUNK = State.CHUNK
_SWALLOW = State.SWALLOW
_DIALOGUE = State.DIALOGUE
_SECURING = State.SECURING
_CLOSING = State.CLOSING
_CLOSED = State.CLOSED

_receive = Extensions.receive  # what super() looks up, at each piece of input


class Engine(Extensions):
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
                event = self._next_command()
            elif state is _CONTENT or state is _DISCARD:
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
        event, self._waiting = self._waiting, None
        if isinstance(event, Recipient):
            assert self.transaction is not None
            self.transaction.recipients.append(event)
            self._replies.append(answer or replies.RECIPIENT_OK)
        elif isinstance(event, Mail):
            self.transaction = event.transaction
            self.chunked = False
            self._replies.append(answer or replies.SENDER_OK)
        elif isinstance(event, Content):
            if self._lmtp:
                answer = self._for_each(answer or replies.OK)
            self.transaction = None
            self._rejected = 0
            self._replies.append(answer or replies.OK)
        elif isinstance(event, StartTls):
            if self.buffered:
                self._hang_up(self._limits.too_early)
                return
            self._replies.append(answer or replies.GO_AHEAD)
            self._state = _SECURING
            self._forget()
        elif isinstance(event, Command):
            self._carry_out(event, answer)
        elif event is not None:  # Auth or Response
            self._replies.append(answer or replies.AUTHENTICATED)
            self._state = _COMMAND
            self.authenticated = True
            self._locked = False
        else:
            raise RuntimeError("no event waits for an answer")

    def reject(self, answer: bytes) -> None:
        """Answer the waiting event with no.

        Args:
            answer: the complete reply, 4xx or 5xx; after 421 the connection is to be closed. In
                LMTP a reply to a final Content is given for each recipient.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        event, self._waiting = self._waiting, None
        if event is None:
            raise RuntimeError("no event waits for an answer")
        if isinstance(event, Content):
            answer = self._for_each(answer)
            self.transaction = None
        elif isinstance(event, Response):
            self._state = _COMMAND
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

    def challenge(self, data: bytes) -> None:
        """Answer the waiting Auth or Response with a question; a Response will follow.

        Args:
            data: what the client is asked, not encoded yet.

        Raises:
            RuntimeError: no Auth and no Response waits for an answer.
        """
        if not isinstance(self._waiting, Auth | Response):
            raise RuntimeError("no step of an AUTH dialogue waits for an answer")
        self._waiting = None
        self._replies.append(b"334 " + binascii.b2a_base64(data, newline=False) + b"\r\n")
        self._state = _DIALOGUE

    def answer(self, answers: Sequence[bytes]) -> None:
        """Answer the waiting final Content, in LMTP for each recipient by itself.

        Args:
            answers: one complete reply for each of the transaction's recipients, in their order;
                in SMTP one for all. If one is 421 the connection is to be closed.

        Raises:
            RuntimeError: no final Content waits for an answer.
            ValueError: there are not as many replies as needed.
        """
        transaction = self.transaction
        if not isinstance(self._waiting, Content) or transaction is None:
            raise RuntimeError("no message waits for an answer")
        if len(answers) != (len(transaction.recipients) if self._lmtp else 1):
            raise ValueError("in LMTP each recipient needs a reply, in SMTP the message needs one")
        self._waiting = None
        self.transaction = None
        self._replies.extend(answers)
        kinds = {answer[:1] for answer in answers}
        if b"2" in kinds:
            self._rejected = 0
        elif kinds == {b"5"}:
            self._refuse(self._replies.pop())
        if any(answer.startswith(b"421") for answer in answers):
            self._hang_up(self._replies.pop())

    def tls_started(self) -> None:
        """Begin anew, over TLS.

        Raises:
            RuntimeError: the engine did not give the go-ahead, or plaintext came after it.
        """
        if self._state is not _SECURING:
            raise RuntimeError("not waiting for a handshake")
        self._state = _COMMAND
        self.encrypted = True

    def _forget(self) -> None:
        """Forget what the client said, as if it had just been greeted."""
        self.client_name = ""
        self.extended = False
        self.authenticated = False
        self._locked = self._limits.auth_required
        self.transaction = None
        self.discard()

    # --- what follows from the input ----------------------------------------------------------

    def _next_command(self) -> Event | None:
        """Execute command lines until one gives an event or changes the state."""
        while len(self._replies) < FLUSH_AT:
            event = None
            try:
                line = self.next_line()
                if line is None:
                    return None
                event = self._execute(line)
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
            event = RESET
        if self.ended:
            self._state = _COMMAND
            refusal = self._for_each(self._refusal)
            self.transaction = None
            self._refuse(refusal)
        return event

    def _next_chunk(self) -> Event | None:
        """Give what has been received of the chunk, or in SWALLOW drop it."""
        if self._state is _SWALLOW:
            self.skip_octets()
            if not self._left:
                self._state = _COMMAND
                self._refuse(self._refusal)
            return None
        piece = self.next_octets()
        if self._left and not piece:
            return None
        transaction = self.transaction
        assert transaction is not None
        if transaction.body != "BINARYMIME":
            self.judge(piece)
            if self.bare:
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
                raise Refused(501, "5.7.0", "Cancelled")
            event = self._waiting = Response(decode_response(line))
        except Refused as error:
            self._state = _COMMAND
            self._refuse(error.reply)
            return Response(None)
        return event
