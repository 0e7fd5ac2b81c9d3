"""Reads the input of an IMAP client: commands, their literals, messages, dialogues.

Rules of this file: what is done with each line and each octet, in the order in which they come; no
answers of the engine's user.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import command_table
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Authenticate,
    AuthenticateResponse,
    Cancelled,
    Event,
    Fetch,
    Goodbye,
    IdleDone,
    List,
    Search,
    Select,
    StartTls,
    Status,
    Store,
)
from fastlisten.handlers.imap.engine.parse_append import parse_first_message, parse_next_message
from fastlisten.handlers.imap.engine.parse_session import decode_response
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Incomplete, Literal, Scanner, literal_at_end
from fastlisten.handlers.imap.engine.session import Session
from fastlisten.handlers.imap.engine.session_states import Reading, State
from fastlisten.handlers.imap.engine.status_responses import GO_AHEAD, status

__all__ = ["InputReader"]

_IN_CLEAR = "Plaintext authentication disallowed on non-secure (SSL/TLS) connections"

_GOODBYE = Goodbye()
_CANCELLED = Cancelled()
_APPEND_END = AppendEnd()
_IDLE_DONE = IdleDone()

_COMMAND = Reading.COMMAND
_LITERAL = Reading.LITERAL
_MESSAGE = Reading.MESSAGE
_SWALLOW = Reading.SWALLOW
_REST = Reading.REST
_RESPONSE = Reading.RESPONSE
_IDLE = Reading.IDLE
_TLS = Reading.TLS
_END = Reading.END


class InputReader(Session):
    """A session that reads its input; the engine is one."""

    __slots__ = ()

    def next_event(self) -> Event | None:
        """Execute what has been received up to the next event.

        Returns:
            The event; or None when more input is needed, or an answer to an earlier event.
        """
        while self._waiting is None:
            reading = self._reading
            event: Event | None
            if reading is _COMMAND:
                event = self._next_command()
            elif reading is _LITERAL:
                event = None
                self._next_octets()
            elif reading is _MESSAGE:
                event = self._next_piece()
            elif reading is _SWALLOW:
                event = None
                self._swallow()
            elif reading is _REST:
                event = self._skip_rest()
            elif reading is _RESPONSE:
                event = self._next_response()
            elif reading is _IDLE:
                event = self._next_done()
            elif reading is _END and not self._said_goodbye:
                self._said_goodbye = True
                return _GOODBYE
            else:
                return None
            if event is not None:
                return event
            if self._input.endless:
                self._hang_up("Command line too long", b"TOOBIG")
            elif self._reading is reading:
                return None
        return None

    # --- reading ------------------------------------------------------------------------------

    def _next_line(self, limit: int) -> bytes | None:
        """Return the next line.

        Raises:
            Refused: it is bad, and the tag and the name have been found.
        """
        try:
            return self._input.next_line(limit)
        except Refused:
            if self._append is None:
                head = bytes(self._command) if self._command else self._input.head
                self._name(head)
            self._forget_command()
            raise

    def _next_command(self) -> Event | None:
        """Execute a line: a command, a part of one, or what follows a message of APPEND."""
        command = self._command
        limit = self._most() - (len(command) if command else 0)
        if command is None and self.state is State.NOT_AUTHENTICATED:
            limit = max(limit, self._limits.max_response)
        try:
            line = self._next_line(max(limit, 2))
        except Refused as error:
            return self._refuse(error)
        if line is None:
            return None
        literal = literal_at_end(line)
        if self._append is not None:
            return self._after_message(line, literal, self._append)
        if literal is not None:
            return self._announced(line, literal)
        self._command = None
        return self._execute(bytes(command) + line if command else line)

    def _execute(self, data: bytes) -> Event:
        """Execute a complete command."""
        match = command_table.HEAD.match(data)
        if match is None:
            self._name(data)
            return self._refuse(Refused("Invalid command name" if self.tag else "Invalid tag"))
        self.tag = match[1]
        self.name = ""
        try:
            entry = command_table.find(match[2], self.state)
            if entry.name in self._limits.disabled:
                raise Refused("Unknown command")
            self.name = entry.name
            parse = entry.parse
            if parse is None:
                assert entry.event is not None
                event = entry.event
                if match.end() != len(data):
                    raise Refused("Too many arguments")
            else:
                scanner = Scanner(data, match.end())
                event = parse(scanner)
                scanner.end()
            if entry.checked:
                event = self._check(event)
        except Refused as error:
            return self._refuse(error)
        self._waiting = event
        return event

    def _check(self, event: Event) -> Event:
        """Check what depends on the session, and remember what a command implies.

        Raises:
            Refused: it is not allowed.
        """
        if isinstance(event, Fetch):
            if event.vanished and "QRESYNC" not in self.enabled:
                raise Refused("QRESYNC not enabled")
            if "MODSEQ" in event.items:
                self.condstore = True
        elif isinstance(event, Store):
            if event.unchanged_since is not None:
                self.condstore = True
        elif isinstance(event, Search):
            if event.modseq:
                self.condstore = True
        elif isinstance(event, Status):
            if "HIGHESTMODSEQ" in event.items:
                self.condstore = True
        elif isinstance(event, List):
            if "HIGHESTMODSEQ" in event.status:
                self.condstore = True
        elif isinstance(event, Select):
            if event.qresync is not None and "QRESYNC" not in self.enabled:
                raise Refused("QRESYNC not enabled")
            if event.condstore:
                self.condstore = True
            if self.state is State.SELECTED:
                event = Select(
                    event.mailbox, event.read_only, event.condstore, event.qresync, closed=True
                )
                # RFC 3501 6.3.1: it is no longer selected, even if this one cannot be.
                self.state = State.AUTHENTICATED
        elif isinstance(event, StartTls):
            if self.encrypted:
                raise Refused("TLS is already active")
            if not self._limits.starttls:
                raise Refused("TLS support isn't enabled")
        else:
            self._check_privacy()
            if isinstance(event, Authenticate) and event.mechanism not in self._limits.mechanisms:
                raise Refused("Unsupported authentication mechanism", "NO")
        return event

    def _check_privacy(self) -> None:
        if not (self.encrypted or self._limits.login_in_clear):
            raise Refused(_IN_CLEAR, "NO", "PRIVACYREQUIRED")

    # --- literals -----------------------------------------------------------------------------

    def _announced(self, line: bytes, literal: Literal) -> Event | None:
        """Go on after a line that announces a literal, if it may come."""
        command = self._command
        try:
            # The name is looked at once: looking at all that has come, for each of many literals,
            # would take quadratic time. In APPEND there are two before the first message ends.
            if command is None or self.name == "APPEND":
                event = self._begun(bytes(command) + line if command else line, literal)
                if event is not None:
                    self._command = None
                    self._literal = literal
                    self._waiting = event
                    return event
            if literal.binary:
                raise Refused("BINARY literals are not supported")
            if command is None:
                command = bytearray()
            if literal.size > self._limits.max_literal:
                raise Refused("Literal size too large", "BAD", "TOOBIG")
            if len(command) + len(line) + 2 + literal.size > self._most():
                raise Refused("Literal size too large", "BAD", "TOOBIG")
        except Refused as error:
            return self._refuse(error, literal)
        command += line
        command += b"\r\n"
        self._command = command
        self._left = literal.size
        self._reading = _LITERAL
        if literal.waits:
            self._unsent.append(GO_AHEAD)
        return None

    def _begun(self, data: bytes, literal: Literal) -> AppendMessage | None:
        """Look at a command whose first literal is announced.

        Returns:
            The event, if the literal is a message of APPEND.

        Raises:
            Refused: it will not be carried out, whatever the literal is.
        """
        match = command_table.HEAD.match(data)
        if match is None:
            self._name(data)
            raise Refused("Invalid command name" if self.tag else "Invalid tag")
        self.tag = match[1]
        self.name = ""
        entry = command_table.find(match[2], self.state)
        self.name = entry.name
        if entry.name == "LOGIN":
            self._check_privacy()
        if entry.name != "APPEND":
            return None
        scanner = Scanner(data + b"\r\n", match.end())
        try:
            return parse_first_message(scanner, literal, self._limits.max_message_size)
        except Incomplete:
            return None  # it is the mailbox

    def _next_octets(self) -> None:
        """Collect octets of a literal."""
        piece = self._input.take(self._left)
        assert self._command is not None
        self._command += piece
        self._left -= len(piece)
        if not self._left:
            self._reading = _COMMAND

    def _next_piece(self) -> Event | None:
        """Hand out octets of a message."""
        piece = self._input.take(self._left)
        if not piece:
            return None
        self._left -= len(piece)
        if not self._left:
            self._reading = _COMMAND
        return AppendOctets(piece)

    def _after_message(self, line: bytes, literal: Literal | None, last: AppendMessage) -> Event:
        """Go on after a message of APPEND: another one, or the end of the command."""
        self._append = None
        if not line.strip(b" "):
            self._waiting = _APPEND_END
            return _APPEND_END
        if literal is None:
            return self._refuse(Refused("Invalid arguments"))
        try:
            event = parse_next_message(
                Scanner(line + b"\r\n"),
                last.mailbox,
                literal,
                self._limits.max_message_size,
                last.index + 1,
            )
        except Refused as error:
            return self._refuse(error, literal)
        self._literal = literal
        self._waiting = event
        return event

    def _swallow(self) -> None:
        """Drop octets of a literal that has been refused."""
        self._left -= len(self._input.take(self._left))
        if not self._left:
            self._reading = _REST

    def _skip_rest(self) -> Event | None:
        """Drop what follows such a literal."""
        try:
            line = self._input.next_line(self._most())
        except Refused as error:
            self._reading = _COMMAND
            self.tag, self.name = b"", ""  # has got its answer
            return self._refuse(error)
        if line is not None:
            self._reading = _COMMAND
            literal = literal_at_end(line)
            # One that waits is not sent: its command has been answered.
            if literal is not None and not literal.waits:
                self._begin_swallowing(literal)
        return None

    # --- dialogues ----------------------------------------------------------------------------

    def _next_response(self) -> Event | None:
        """Read a line of the AUTHENTICATE dialogue."""
        try:
            line = self._input.next_line(self._limits.max_response)
            if line is None:
                return None
            self._reading = _COMMAND
            if line == b"*":
                self._unsent.append(status(self.tag, b"BAD", "Authentication cancelled"))
                return _CANCELLED
            response = AuthenticateResponse(decode_response(line))
        except Refused as error:
            self._reading = _COMMAND
            self._refuse(error)
            return _CANCELLED
        self._waiting = response
        return response

    def _next_done(self) -> Event | None:
        """Read DONE."""
        try:
            line = self._input.next_line(self._most())
            if line is None:
                return None
            self._reading = _COMMAND
            if line.strip(b" ").upper() != b"DONE":
                raise Refused("Expected DONE")
        except Refused as error:
            self._reading = _COMMAND
            return self._refuse(error)
        self._waiting = _IDLE_DONE
        return _IDLE_DONE
