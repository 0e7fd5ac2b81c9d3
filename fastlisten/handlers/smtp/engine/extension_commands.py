"""The commands of extensions, and what they do to a session: STARTTLS, AUTH, BDAT.

Rules of this file: as in base_commands.py.

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

from fastlisten.handlers.smtp.engine.base_commands import no_argument, unknown
from fastlisten.handlers.smtp.engine.chunk_reader import ChunkReader
from fastlisten.handlers.smtp.engine.command_syntax import parse_auth, parse_chunk
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.session_states import SessionState
from fastlisten.handlers.smtp.engine.smtp_events import Auth, Event, StartTls
from fastlisten.handlers.smtp.engine.smtp_session import Session

__all__ = ["auth", "bdat", "refuse_chunk", "starttls"]

_START_TLS = StartTls()


# --- TLS ------------------------------------------------------------------------------------------


def starttls(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """STARTTLS."""
    if session.encrypted:
        raise Refused(503, "5.5.1", "TLS already active")
    if not session.limits.starttls:
        return unknown(session, verb, argument)
    no_argument(verb, argument)
    if not session.extended:
        raise Refused(503, "5.5.1", "Send EHLO first")
    if session.input.buffered:
        session.hang_up(session.limits.too_early)
        return None
    session.waiting = _START_TLS
    return _START_TLS


# --- AUTH -----------------------------------------------------------------------------------------


def auth(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """AUTH."""
    limits = session.limits
    if not limits.mechanisms:
        return unknown(session, verb, argument)
    if not session.extended:
        raise Refused(503, "5.5.1", "Send EHLO first")
    if not limits.offers_auth(session.encrypted):
        if limits.offers_tls(session.encrypted):
            raise Refused(538, "5.7.11", "Must issue a STARTTLS command first")
        return unknown(session, verb, argument)
    if session.authenticated:
        raise Refused(503, "5.5.1", "Already authenticated")
    if session.transaction is not None:
        raise Refused(503, "5.5.1", "MAIL transaction in progress")
    event = session.waiting = Auth(*parse_auth(argument, limits.mechanisms))
    return event


# --- BDAT -----------------------------------------------------------------------------------------


def bdat(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """BDAT."""
    chunk = parse_chunk(argument)
    if chunk is None:
        session.hang_up(session.limits.out_of_step)
        return None
    size, final = chunk
    chunks = session.chunks
    if chunks is None:
        chunks = session.chunks = ChunkReader(session.input)
    chunks.begin_chunk(size, bool(final))
    try:
        _begin_chunk_of_message(session, chunks, size, final)
    except Refused as error:
        return refuse_chunk(session, error.reply)
    if session.size > session.limits.max_message_size:
        session.limits.counts.message("rejected")
        too_large = session.limits.too_large
        return refuse_chunk(session, session.for_each(too_large) if final else too_large)
    session.enter(SessionState.CHUNK)
    return None


def _begin_chunk_of_message(
    session: Session, chunks: ChunkReader, size: int, final: bool | None
) -> None:
    """See whether the message may go on, or begin, with such a chunk."""
    transaction = session.transaction
    if final is None:
        raise Refused(501, "5.5.4", "Syntax: BDAT size [LAST]")
    if transaction is None:
        raise session.out_of_order("MAIL")
    if not session.extended:
        raise Refused(503, "5.5.1", "Send EHLO first")
    if not session.chunked:
        if not transaction.recipients:
            raise session.no_recipients()
        session.size = 0
        session.chunked = True
        chunks.begin_message()
    session.size += size


def refuse_chunk(session: Session, answer: bytes) -> Event | None:
    """Drop the rest of the current chunk, and all that came before it; then give the reply."""
    session.refusal = answer
    session.refusal_about = session.transaction
    session.enter(SessionState.SWALLOW)
    return session.reset()
