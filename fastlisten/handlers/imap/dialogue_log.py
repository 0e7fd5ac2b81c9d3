"""The dialogue of a session in the log (`imap.log-dialogue`): commands and responses, no secrets.

Rules of this file: nothing that may be a password is logged, wherever the client sends it. A
command is logged only if it has a known name; of LOGIN only the name is, of AUTHENTICATE the
mechanism too, and nothing of the responses that follow; of messages, of literals that we send and
of everything else only the number of octets. Arguments of other commands are shown.

DialogueEngine is used only where the dialogue is logged; other sessions pay nothing.
"""

from __future__ import annotations

import re

from fastlisten.handlers.imap.engine.commands import (
    AppendMessage,
    AppendOctets,
    Authenticate,
    Event,
    Refusal,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine
from fastlisten.handlers.imap.engine.limits import Limits
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Literal
from fastlisten.handlers.transcript import Transcript
from fastlisten.log_events import shortened

__all__ = ["DialogueEngine"]

_LITERAL = re.compile(rb"\{([0-9]+)\}\Z")


class DialogueEngine(ImapEngine):
    """An engine that logs what is said.

    Attributes:
        tell: called with each line; nothing is logged until it is set.
    """

    __slots__ = ("_hidden", "_skipped", "tell")

    def __init__(self, limits: Limits, encrypted: bool) -> None:
        super().__init__(limits, encrypted)
        self.tell: Transcript | None = None
        self._hidden: set[bytes] = set()  # tags that may be passwords, sent instead of a command
        self._skipped = 0  # octets of a literal whose beginning has been written

    def _show(self, client: bool, words: bytes) -> None:
        if self.tell is not None:
            self.tell(client, shortened(words.decode("utf-8", "backslashreplace")))

    # --- what the client says -----------------------------------------------------------------

    def _execute(self, data: bytes) -> Event:
        event = super()._execute(data)
        tag, name = self.tag, self.name.encode()
        if not name:
            self._show(True, b"(%d octets that are no command)" % len(data))
        elif name == b"AUTHENTICATE" and isinstance(event, Authenticate):
            self._show(True, b"%b %b %b ***" % (tag, name, event.mechanism.encode()))
        elif name in (b"AUTHENTICATE", b"LOGIN"):
            self._show(True, b"%b %b ***" % (tag, name))
        else:
            self._show(True, data)
        return event

    def _announced(self, line: bytes, literal: Literal) -> Event | None:
        event = super()._announced(line, literal)
        if isinstance(event, AppendMessage):
            self._show(True, line)
        return event

    def _next_piece(self) -> Event | None:
        event = super()._next_piece()
        if isinstance(event, AppendOctets):
            self._show(True, b"(%d octets of a message)" % len(event.data))
        return event

    def _next_response(self) -> Event | None:
        event = super()._next_response()
        if event is not None:
            self._show(True, b"(a response of AUTHENTICATE)")
        return event

    def _next_done(self) -> Event | None:
        event = super()._next_done()
        if event is not None:
            self._show(True, b"DONE" if self.waiting else b"(not DONE)")
        return event

    def _refuse(self, error: Refused, literal: Literal | None = None) -> Refusal:
        refusal = super()._refuse(error, literal)
        if self.tag and not self.name:
            self._hidden.add(self.tag)
        return refusal

    # --- what we say --------------------------------------------------------------------------

    def output(self) -> bytes:
        """Return what is to be written, and log it."""
        data = super().output()
        position = min(self._skipped, len(data))
        self._skipped -= position
        while position < len(data):
            end = data.find(b"\r\n", position)
            if end < 0:
                end = len(data)
            line = data[position:end]
            tag, _, rest = line.partition(b" ")
            if tag in self._hidden:
                self._show(False, b"*** " + rest)
            elif line:
                self._show(False, line)
            position = end + 2
            if literal := _LITERAL.search(line):
                size = int(literal[1])
                taken = min(size, max(0, len(data) - position))
                position += taken
                self._skipped = size - taken
        self._hidden.clear()
        return data
