"""The dialogue of a session in the log (`smtp.log-dialogue`): commands and replies, no secrets.

Rules of this file: nothing that may be a password is logged, wherever the client sends it. A line
is logged only if it begins with a known command; of AUTH only the mechanism is, and nothing of the
responses that follow; of messages and of everything else only the number of octets. (A client whose
AUTH was refused may send its password all the same, and that looks like a command line.)

DialogueEngine is used only where the dialogue is logged; other sessions pay nothing.
"""

from __future__ import annotations

import logging

from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.verbs import HTTP_VERBS, verb_shown
from fastlisten.handlers.transcript import Transcript
from fastlisten.log_events import shortened

__all__ = ["DialogueEngine", "foreign_transcript"]

#: The logger of aiosmtpd's own dialogue, which programs written for it have set up.
_foreign = logging.getLogger("mail.log")

#: The SASL mechanisms of the IANA registry that clients try. Anything else after AUTH may be a
#: password.
_MECHANISMS = frozenset(
    b"ANONYMOUS CRAM-MD5 DIGEST-MD5 EXTERNAL GSSAPI LOGIN NTLM OAUTHBEARER PLAIN SCRAM-SHA-1 "
    b"SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS XOAUTH2".split()
)


def foreign_transcript(peer: object) -> Transcript | None:
    """Return a function that logs as aiosmtpd does, to ``mail.log``; None if that is disabled."""
    if not _foreign.isEnabledFor(logging.INFO):
        return None

    def tell(client: bool, line: str) -> None:
        if client:
            _foreign.info("%r >> %r", peer, line)
        else:
            _foreign.debug("%r << %r", peer, line)

    return tell


class _DialogueInput(InputBuffer):
    """An input buffer that logs the input that it returns.

    Attributes:
        tell: called with each line; nothing is logged until it is set.
    """

    __slots__ = ("_octets", "tell")

    def __init__(self) -> None:
        super().__init__()
        self._octets = 0  # of the message so far
        self.tell: Transcript | None = None

    def show(self, words: bytes, client: bool = True) -> None:
        """Log what one side has sent, line by line."""
        if self.tell is not None:
            for line in words.decode("utf-8", "backslashreplace").split("\r\n"):
                if line:
                    self.tell(client, shortened(line))

    def next_line(self) -> bytes | None:
        """Take the next command line; as in `InputBuffer`."""
        try:
            line = super().next_line()
        except Refused:
            self.show(b"(malformed line)")
            raise
        if line is not None:
            self.show(_without_secrets(line))
        return line

    def next_response(self) -> bytes | None:
        """Take the next line of an AUTH dialogue; as in `InputBuffer`."""
        line = super().next_response()
        if line is not None:
            self.show(b"*" if line == b"*" else b"(%d octets in response to 334)" % len(line))
        return line

    def begin_content(self) -> None:
        """Begin a message; as in `InputBuffer`."""
        self._octets = 0
        super().begin_content()

    def next_piece(self) -> bytes | None:
        """Take a piece of the message; as in `InputBuffer`."""
        piece = super().next_piece()
        if piece is not None:
            self._octets += len(piece)
            if self.ended:
                self.show(b"(message of %d octets)" % self._octets)
        return piece


class DialogueEngine(SmtpEngine):
    """An engine that logs commands and replies.

    Attributes:
        tell: called with each line; nothing is logged until it is set.
    """

    __slots__ = ("_dialogue",)

    def __init__(self, limits: Limits, encrypted: bool = False) -> None:
        self._dialogue = _DialogueInput()
        super().__init__(limits, encrypted, self._dialogue)

    @property
    def tell(self) -> Transcript | None:
        """What is called with each line."""
        return self._dialogue.tell

    @tell.setter
    def tell(self, transcript: Transcript | None) -> None:
        self._dialogue.tell = transcript

    def show(self, words: bytes, *, client: bool = False) -> None:
        """Log what one side has sent, line by line."""
        self._dialogue.show(words, client)

    def replies(self) -> bytes:
        """Take what is to be written; as in `SmtpEngine`."""
        words = super().replies()
        self._dialogue.show(words, False)
        return words


def _without_secrets(line: bytes) -> bytes:
    """Return a command line as it may be logged."""
    verb, space, argument = line.rstrip(b" \t").partition(b" ")
    verb = verb.upper()
    if verb == b"AUTH":
        mechanism, more, _ = argument.lstrip(b" ").partition(b" ")
        if not argument or mechanism.upper() in _MECHANISMS:
            return line[: len(verb)] + space + mechanism + (b" ***" if more else b"")
        return b"AUTH ***"
    if verb in HTTP_VERBS:  # the query may contain a password
        return b"%s (%d octets)" % (verb, len(line))
    if verb_shown(verb) == "UNKNOWN":
        return b"(unknown command of %d octets)" % len(line)
    return line
