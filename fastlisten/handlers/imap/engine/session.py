"""What an IMAP session is made of, and how commands are refused.

Rules of this file: all data of a session, and what every part of the engine does with it. What
reads the input is in reading.py, what its user calls in engine.py.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import command_table
from fastlisten.handlers.imap.engine.commands import AppendMessage, Event, Refusal
from fastlisten.handlers.imap.engine.input_buffer import InputBuffer
from fastlisten.handlers.imap.engine.limits import Limits
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Literal
from fastlisten.handlers.imap.engine.session_states import Reading, State
from fastlisten.handlers.imap.engine.status_responses import status

__all__ = ["Session"]

#: Octets of refused literals that are dropped for a command before login; after it, twice the size
#: of the largest message. More of them end the session (RFC 7888 4).
SWALLOW_BEFORE_LOGIN = 65_536

# CPython 3.11 takes 40 ns to look up a member of an enum.
_COMMAND = Reading.COMMAND
_SWALLOW = Reading.SWALLOW
_TLS = Reading.TLS
_END = Reading.END

#: What is enabled first: an empty frozenset has 216 octets.
_NONE: frozenset[str] = frozenset()


class Session:
    """One connection's IMAP session, from the server's side, after the greeting.

    Args:
        limits: what holds for the listener.
        encrypted: the session runs over TLS from the beginning.
        state: AUTHENTICATED after the greeting PREAUTH.

    Attributes:
        condstore: the client has asked for modification sequences (RFC 7162 3.1); whoever sees
            that it has become true says HIGHESTMODSEQ.
        enabled: what `enable` was told.
        encrypted: the session runs over TLS.
        name: of the last command, in upper case; empty for what is none.
        state: where the session is.
        tag: of the last command; empty for what is none.
    """

    __slots__ = (
        "_append",
        "_bad",
        "_command",
        "_input",
        "_left",
        "_limits",
        "_literal",
        "_reading",
        "_said_goodbye",
        "_swallowed",
        "_unsent",
        "_waiting",
        "condstore",
        "enabled",
        "encrypted",
        "name",
        "state",
        "tag",
    )

    def __init__(
        self,
        limits: Limits,
        encrypted: bool = False,
        state: State = State.NOT_AUTHENTICATED,
    ) -> None:
        self._limits = limits
        self._input = InputBuffer()
        self._reading: Reading = _COMMAND
        self._waiting: Event | None = None
        self._unsent: list[bytes] = []
        self._command: bytearray | None = None  # lines and literals before the one that is read
        self._literal: Literal | None = None  # of the waiting AppendMessage
        self._append: AppendMessage | None = None  # the message before the line that is read
        self._left = 0  # octets of the literal that is read
        self._swallowed = 0
        self._bad = 0
        self._said_goodbye = False
        self.condstore = False
        self.enabled = _NONE
        self.encrypted = encrypted
        self.name = ""
        self.state = state
        self.tag = b""

    # --- refusals -----------------------------------------------------------------------------

    def _name(self, line: bytes) -> None:
        """Find the tag of a line that is no command."""
        self.tag = command_table.tag_of(line)
        self.name = ""

    def _forget_command(self) -> None:
        self._command = None
        self._append = None

    def _refuse(self, error: Refused, literal: Literal | None = None) -> Refusal:
        """Answer a command that is not carried out.

        Args:
            error: why.
            literal: what it announces, if the client may send that anyway.
        """
        self._forget_command()
        name = self.name
        text = error.text
        if error.status == "BAD":
            where = f" command {name}" if name else " command" if self.tag else " tag"
            text = f"Error in IMAP{where}: {text}"
        code = error.code.encode("ascii")
        self._unsent.append(status(self.tag or b"*", error.status.encode("ascii"), text, code))
        if error.status == "BAD":
            self._count_bad()
        if literal is not None and not literal.waits and self._reading is not _END:
            self._swallowed = 0
            self._begin_swallowing(literal)
        return Refusal(name, error.text, error.unsaved, error.status == "BAD", code)

    def _count_bad(self) -> None:
        self._bad += 1
        before = self.state is State.NOT_AUTHENTICATED
        limits = self._limits
        if self._bad >= (limits.max_bad_before_login if before else limits.max_bad_commands):
            self._hang_up("Too many invalid IMAP commands")

    def _hang_up(self, text: str, code: bytes = b"") -> None:
        if self._reading is _TLS:  # nothing may be said
            self._end()
        elif self._reading is not _END:
            self._unsent.append(status(b"*", b"BYE", text, code))
            self._end()

    def _end(self) -> None:
        self._reading = _END
        self.state = State.LOGOUT
        self._waiting = None
        self._forget_command()
        self._input.discard()

    def _most(self) -> int:
        """Return how many octets a command may have."""
        if self.state is State.NOT_AUTHENTICATED:
            return self._limits.max_command_before_login
        return self._limits.max_command

    def _begin_swallowing(self, literal: Literal) -> None:
        """Drop a literal that the client sends without being asked, or end the session."""
        before = self.state is State.NOT_AUTHENTICATED
        most = SWALLOW_BEFORE_LOGIN if before else 2 * self._limits.max_message_size
        self._swallowed += literal.size
        if self._swallowed > most:
            self._hang_up("Literal size too large", b"TOOBIG")
        else:
            self._left = literal.size
            self._reading = _SWALLOW
