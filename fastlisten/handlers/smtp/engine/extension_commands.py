"""The commands of extensions, and what they do to a session: STARTTLS, AUTH, BDAT.

Rules of this file: as in base_commands.py.

STARTTLS, where RFC 3207 leaves a choice:

    without EHLO         503, as Exim does: it is an extension, and extensions need EHLO. (Postfix
                         takes it.)
    in a transaction     taken, and the transaction is over, as in Postfix and Exim: the RFC does
                         not forbid it, and everything is forgotten anyway
    while TLS is active  503: it was not offered (Exim; Postfix says 554)
    input after it       554 5.5.0, and the connection is closed. The client must wait for the 220;
                         earlier input is a plaintext command, injected to be executed as if it were
                         encrypted (CVE-2011-0411). Exim does the same (a synchronisation error).
                         Postfix drops such input; it sends this reply, and disconnects, for input
                         after other commands that must be the last of a group.

AUTH (RFC 4954) is available if `Limits.mechanisms` is not empty, over TLS only:

    not over TLS         538 if STARTTLS is offered, otherwise 502
    without EHLO, twice,
    in a transaction     503

The dialogue itself is not examined here. A client that has been refused may try again, until it has
made too many errors.

BDAT (RFC 3030). If a chunk is refused, exactly its announced octets are dropped before the reply,
so none of them is ever taken for a command. The transaction is over, so pipelined chunks after it
get 503, each after its octets. If the size is invalid, the next command cannot be found: 501, and
the connection is closed. RCPT and DATA between chunks get 503 and change nothing. A message that is
too large is refused with the chunk that exceeds the limit.
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
