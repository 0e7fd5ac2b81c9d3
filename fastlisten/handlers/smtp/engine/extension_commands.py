"""What the commands of extensions do to a session: STARTTLS, AUTH, BDAT; and which there are.

Rules of this file: as in smtp_session.py.

STARTTLS (RFC 3207), where it leaves room:

    without EHLO         503, as Exim does: it is an extension, and extensions need EHLO. (Postfix
                         takes it.)
    in a transaction     taken, and the transaction is over, as in Postfix and Exim: the RFC does
                         not forbid it, and everything is forgotten anyway
    while TLS is active  503: it was not offered (Exim; Postfix says 554)
    input behind it      554 5.5.0 and the end. The client must wait for the 220; what has come
                         before is a plaintext command, put there to be executed as if it had come
                         by TLS (CVE-2011-0411). Exim does the same (a synchronisation error);
                         Postfix drops such input, but has this reply for other commands behind
                         which nothing may be pipelined, and hangs up after it.

AUTH (RFC 4954) is there where `Limits.mechanisms` names some, and over TLS only:

    not over TLS         538 where STARTTLS would help, 502 where nothing does
    without EHLO, twice,
    in a transaction     503

What is said in a dialogue is not looked at here; a client that has been refused may try again,
until it has made too many errors.

BDAT (RFC 3030). Whatever is wrong with one, its octets are dropped, exactly as many as it named,
before that is said: none of them is ever taken for a command. With it the transaction is over, so
that chunks behind it, pipelined, are told 503, each after its octets. Where the size itself cannot
be read nobody knows what is a command: 501 and the end. RCPT and DATA between chunks are told 503
and change nothing. A message whose size is too large is refused with the chunk that exceeds it.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.command_syntax import parse_auth, parse_chunk
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import Auth, Command, Event, StartTls
from fastlisten.handlers.smtp.engine.smtp_session import Method, Session, SessionState

__all__ = ["Extensions"]

_START_TLS = StartTls()


class Extensions(Session):
    """A session with the commands of extensions, and its table of commands."""

    __slots__ = ()

    def _fill(self, limits: Limits) -> dict[bytes, Method]:
        commands = dict(_COMMANDS)
        other = (b"EHLO", b"HELO") if limits.protocol == "lmtp" else (b"LHLO",)
        for verb, (_, method) in _TELLABLE.items():
            if verb not in other:
                commands[verb] = Extensions._tell if verb.decode() in limits.told else method
        limits.commands.update(commands)  # at once: another thread may have sessions, too
        return commands

    # --- TLS ----------------------------------------------------------------------------------

    def _starttls(self, verb: bytes, argument: bytes) -> Event | None:
        if self.encrypted:
            raise Refused(503, "5.5.1", "TLS already active")
        if not self._limits.starttls:
            return self._unknown(verb, argument)
        if argument:
            self._no_argument(verb)
        if not self.extended:
            raise Refused(503, "5.5.1", "Send EHLO first")
        if self.buffered:
            self._hang_up(self._limits.too_early)
            return None
        self._waiting = _START_TLS
        return _START_TLS

    # --- AUTH ---------------------------------------------------------------------------------

    def _auth(self, verb: bytes, argument: bytes) -> Event | None:
        limits = self._limits
        if not limits.mechanisms:
            return self._unknown(verb, argument)
        if not self.extended:
            raise Refused(503, "5.5.1", "Send EHLO first")
        if not limits.offers_auth(self.encrypted):
            if limits.offers_tls(self.encrypted):
                raise Refused(538, "5.7.11", "Must issue a STARTTLS command first")
            return self._unknown(verb, argument)
        if self.authenticated:
            raise Refused(503, "5.5.1", "Already authenticated")
        if self.transaction is not None:
            raise Refused(503, "5.5.1", "MAIL transaction in progress")
        event = self._waiting = Auth(*parse_auth(argument, limits.mechanisms))
        return event

    # --- BDAT ---------------------------------------------------------------------------------

    def _bdat(self, verb: bytes, argument: bytes) -> Event | None:
        chunk = parse_chunk(argument)
        if chunk is None:
            self._hang_up(self._limits.out_of_step)
            return None
        size, final = chunk
        self.begin_chunk(size, bool(final))
        try:
            self._begin_chunk_of_message(size, final)
        except Refused as error:
            return self._refuse_chunk(error.reply)
        if self._size > self._limits.max_message_size:
            self._limits.counts.message("rejected")
            return self._refuse_chunk(self._for_each_if_final(self._limits.too_large))
        self._state = SessionState.CHUNK
        return None

    def _begin_chunk_of_message(self, size: int, final: bool | None) -> None:
        """See whether the message may go on, or begin, with such a chunk."""
        transaction = self.transaction
        if final is None:
            raise Refused(501, "5.5.4", "Syntax: BDAT size [LAST]")
        if transaction is None:
            raise self._out_of_order("MAIL")
        if not self.extended:
            raise Refused(503, "5.5.1", "Send EHLO first")
        if not self.chunked:
            if not transaction.recipients:
                raise self._no_recipients()
            self._size = 0
            self.begin_chunks()
        self._size += size

    def _refuse_chunk(self, answer: bytes) -> Event | None:
        """Drop the rest of the current chunk, and all that came before it; then give the reply."""
        self._refusal = answer
        self._of = self.transaction
        self._state = SessionState.SWALLOW
        return self._reset()

    def _for_each_if_final(self, answer: bytes) -> bytes:
        """Return the reply to the current chunk: the last one is answered like a message."""
        return self._for_each(answer) if self._final else answer

    # --- commands of which the user is told ---------------------------------------------------

    def _tell(self, verb: bytes, argument: bytes) -> Event | None:
        usual = _TELLABLE[verb][0](self, verb, argument)
        event = self._waiting = Command(verb.decode(), argument.decode(errors="replace"), usual)
        return event

    def _carry_out(self, command: Command, answer: bytes) -> None:
        """Do what a command does of which the user has been told."""
        verb = command.verb.encode()
        _TELLABLE[verb][1](self, verb, command.argument.encode())
        if answer:
            self._replies[-1] = answer


#: For each verb of which the user can be told: what the reply would be, and what is done.
_TELLABLE = {
    b"EHLO": (Session._hello_reply, Session._hello),
    b"LHLO": (Session._hello_reply, Session._hello),
    b"HELO": (Session._hello_reply, Session._hello),
    b"RSET": (Session._rset_reply, Session._rset),
    b"NOOP": (Session._noop_reply, Session._noop),
    b"VRFY": (Session._vrfy_reply, Session._vrfy),
    b"HELP": (Session._help_reply, Session._help),
    b"QUIT": (Session._quit_reply, Session._quit),
}


_COMMANDS: dict[bytes, Method] = {
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"BDAT": Extensions._bdat,
    b"AUTH": Extensions._auth,
    b"STARTTLS": Extensions._starttls,
}
