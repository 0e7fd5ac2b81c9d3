"""The IMAP server as a state machine without I/O: octets in, commands out; answers to octets.

Rules of this file: the methods that the engine's user calls, and the order in which input is
executed. No sockets, no loop, no clock, no store. The engine never raises because of what a client
sends, and keeps a bounded amount of it. Events and responses do not depend on how the input is
split, but for the pieces of a message and input after STARTTLS.

    receive(data)      takes input from the client
    next_event()       returns the next command or other event, or None if more input or an answer
                       is needed
    ok(), no(), bad()  answer the command; the engine writes the tag and changes the state
    accept()           answers AppendMessage and Idle: the client may go on
    challenge()        answers Authenticate and its responses
    send()             writes untagged responses, which other modules of this package make
    bye()              ends the session
    tls_started()      the handshake is done; input from now on was encrypted
    output()           returns what is to be written to the client

Commands are executed one after the other (RFC 3501 5.5): while one waits for its answer, input is
only stored, so the user must stop reading when `buffered` grows. The client may send any command
before the answer to another, except after STARTTLS.

The parts of the engine:

    ImapEngine ─┬─ InputBuffer     where lines end, and literals
                ├─ command_table   name -> states, and the function of parse_* that reads the
                │                  arguments by Scanner
                ├─ commands        the events
                └─ status_responses

A command is complete before it is parsed, except that the name is looked up before the client is
told to go on with a literal, and that a message of APPEND is not collected. A refused literal that
comes anyway (RFC 7888) is dropped to its end, and so is the rest of the command.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine.commands import (
    AppendMessage,
    Authenticate,
    AuthenticateResponse,
    Close,
    Event,
    Idle,
    Login,
    Logout,
    Select,
    StartTls,
)
from fastlisten.handlers.imap.engine.limits import Limits
from fastlisten.handlers.imap.engine.reading import InputReader
from fastlisten.handlers.imap.engine.session_states import Reading, State
from fastlisten.handlers.imap.engine.status_responses import GO_AHEAD, IDLING, challenge, status

__all__ = ["ImapEngine", "Limits"]

_COMMAND = Reading.COMMAND
_MESSAGE = Reading.MESSAGE
_RESPONSE = Reading.RESPONSE
_IDLE = Reading.IDLE
_TLS = Reading.TLS
_END = Reading.END


#: Commands that change the state when they succeed, and events that `ok` does not answer.
_WITH_EFFECT = frozenset(
    {AppendMessage, Authenticate, AuthenticateResponse, Close, Idle}
    | {Login, Logout, Select, StartTls}
)


class ImapEngine(InputReader):
    """One connection's IMAP session, from the server's side, after the greeting.

    Its arguments and attributes are those of `Session`.
    """

    __slots__ = ()

    # --- input and output ---------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._reading is _TLS:
            if data:
                # Plaintext after the go-ahead. Nothing may be said any more: the client takes
                # what comes now for TLS.
                self._end()
        elif self._reading is not _END:
            self._input.receive(data)

    def output(self) -> bytes:
        """Return what is to be written to the client, and forget it."""
        unsent = self._unsent
        if not unsent:
            return b""
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        return data

    def send(self, responses: bytes) -> None:
        """Write complete untagged responses."""
        self._unsent.append(responses)

    # --- answers ------------------------------------------------------------------------------

    def ok(self, text: str, code: bytes = b"") -> None:
        """Answer the waiting command: it has been carried out.

        Args:
            text: for people.
            code: the response code, from response_codes.

        Raises:
            RuntimeError: no command waits, or it cannot be answered so.
        """
        event = self._answered()
        effect = type(event) in _WITH_EFFECT
        if effect and isinstance(event, AppendMessage | Idle):
            self._waiting = event
            raise RuntimeError("accept it first")
        if effect and isinstance(event, Logout):
            self._unsent.append(status(b"*", b"BYE", "Logging out"))
        elif effect and isinstance(event, StartTls) and self._input.buffered:
            # RFC 3501 6.2.1: what came in plaintext is not carried out.
            text = "Commands after STARTTLS must be encrypted"
            self._unsent.append(status(self.tag, b"BAD", text))
            self._end()
            return
        self._unsent.append(status(self.tag, b"OK", text, code))
        self._bad = 0
        if not effect:
            return
        if isinstance(event, Login | Authenticate | AuthenticateResponse):
            self.state = State.AUTHENTICATED
        elif isinstance(event, Select):
            self.state = State.SELECTED
        elif isinstance(event, Close):
            self.state = State.AUTHENTICATED
        elif isinstance(event, Logout):
            self._end()
        elif isinstance(event, StartTls):
            self._reading = _TLS

    def no(self, text: str, code: bytes = b"") -> None:
        """Answer the waiting command: it cannot be carried out; as `ok`."""
        self._reject(b"NO", text, code)
        self._bad = 0

    def bad(self, text: str, code: bytes = b"") -> None:
        """Answer the waiting command: it is wrong, as a message number that is not in use."""
        self._reject(b"BAD", text, code)
        self._count_bad()

    def _reject(self, condition: bytes, text: str, code: bytes) -> None:
        event = self._answered()
        self._unsent.append(status(self.tag, condition, text, code))
        literal, self._literal = self._literal, None
        if isinstance(event, AppendMessage) and literal is not None and not literal.waits:
            self._swallowed = 0
            self._begin_swallowing(literal)

    def _answered(self) -> Event:
        event = self._waiting
        if event is None:
            raise RuntimeError("no command waits for an answer")
        self._waiting = None
        return event

    def accept(self) -> None:
        """Answer AppendMessage: let the message come; or Idle: wait for DONE.

        Raises:
            RuntimeError: none of them waits.
        """
        event = self._waiting
        literal, self._literal = self._literal, None
        if isinstance(event, AppendMessage) and literal is not None:
            if literal.waits:
                self._unsent.append(GO_AHEAD)
            self._left = event.size
            self._append = event
            self._reading = _MESSAGE
        elif isinstance(event, Idle):
            self._unsent.append(IDLING)
            self._reading = _IDLE
        else:
            raise RuntimeError("neither a message nor IDLE waits")
        self._waiting = None

    def challenge(self, data: bytes) -> None:
        """Answer Authenticate or AuthenticateResponse with a challenge.

        Args:
            data: not encoded yet.

        Raises:
            RuntimeError: none of them waits.
        """
        if not isinstance(self._waiting, Authenticate | AuthenticateResponse):
            raise RuntimeError("no AUTHENTICATE waits")
        self._waiting = None
        self._unsent.append(challenge(data))
        self._reading = _RESPONSE

    def enable(self, names: frozenset[str]) -> None:
        """Remember what ENABLE has enabled; QRESYNC brings CONDSTORE (RFC 7162 3.2.3)."""
        self.enabled |= names
        if self.enabled & {"CONDSTORE", "QRESYNC"}:
            self.condstore = True

    def bye(self, text: str, code: bytes = b"") -> None:
        """End the session from our side; a waiting command gets no answer. Goodbye follows."""
        self._hang_up(text, code)

    def tls_started(self) -> None:
        """Begin anew, over TLS.

        Raises:
            RuntimeError: the engine did not give the go-ahead, or plaintext came after it.
        """
        if self._reading is not _TLS:
            raise RuntimeError("not waiting for a handshake")
        self._reading = _COMMAND
        self.encrypted = True

    # --- what is known of the session ---------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Octets received and not yet used up."""
        return self._input.buffered

    @property
    def closed(self) -> bool:
        """The last response has been given."""
        return self._reading is _END

    @property
    def idling(self) -> bool:
        """IDLE is on: untagged responses may be sent at any time."""
        return self._reading is _IDLE

    @property
    def securing(self) -> bool:
        """The go-ahead for TLS has been given; nothing may be received but its handshake."""
        return self._reading is _TLS

    @property
    def waiting(self) -> bool:
        """An event waits for its answer."""
        return self._waiting is not None
