"""Handles input other than commands: messages, their chunks, responses to challenges.

Rules of this file: one function per kind of input, called while the session is in its state. It
returns the next event, or None if it needs more input or has changed the state. input_buffer.py and
chunk_reader.py find where messages and chunks end.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.command_syntax import decode_response
from fastlisten.handlers.smtp.engine.extension_commands import refuse_chunk
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import BARE, OK
from fastlisten.handlers.smtp.engine.session_states import SessionState
from fastlisten.handlers.smtp.engine.smtp_events import (
    Content,
    Event,
    Recipient,
    Response,
    Transaction,
)
from fastlisten.handlers.smtp.engine.smtp_session import RESET, Session

__all__ = ["next_chunk", "next_content", "next_response"]

# CPython 3.11 takes 40 ns to look up a member of an enum.
_COMMAND = SessionState.COMMAND
_DISCARD = SessionState.DISCARD
_SWALLOW = SessionState.SWALLOW


def next_content(session: Session) -> Event | None:
    """Give what has been received of the message, or in DISCARD drop it."""
    source = session.input
    piece = source.next_piece()
    if piece is None:
        return None
    event: Event | None = None
    if session.state is _DISCARD:
        if source.bare:
            session.refusal = BARE  # graver than its size, wherever it stands
    else:
        session.size += len(piece)
        if source.bare:
            session.refusal = BARE
        elif session.size > session.limits.max_message_size:
            session.refusal = session.limits.too_large
        else:
            event = Content(piece, source.ended)
            if source.ended:
                session.enter(_COMMAND)
                session.waiting = event
            return event
        session.enter(_DISCARD)
        event = RESET
    if source.ended:
        session.enter(_COMMAND)
        session.limits.counts.message("rejected")
        refusal, transaction = session.for_each(session.refusal), session.transaction
        session.transaction = None
        session.refuse(refusal, _recipients_of(transaction), transaction)
    return event


def next_chunk(session: Session) -> Event | None:
    """Give what has been received of the chunk, or in SWALLOW drop it."""
    chunks = session.chunks
    assert chunks is not None
    if session.state is _SWALLOW:
        chunks.skip()
        if not chunks.left:
            about, session.refusal_about = session.refusal_about, None
            session.enter(_COMMAND)
            session.refuse(session.refusal, _recipients_of(about), about)
        return None
    piece = chunks.next_piece()
    if chunks.left and not piece:
        return None
    transaction = session.transaction
    assert transaction is not None
    if transaction.body != "BINARYMIME":
        chunks.judge(piece)
        if chunks.bare:
            session.limits.counts.message("rejected")
            # The last chunk is answered like a message.
            return refuse_chunk(session, session.for_each(BARE) if chunks.final else BARE)
    if chunks.left:
        return Content(piece, False)
    session.enter(_COMMAND)
    if chunks.final:
        event = session.waiting = Content(piece, True)
        return event
    session.unsent.append(OK)
    return Content(piece, False) if piece else None


def next_response(session: Session) -> Event | None:
    """Give what the client says to a challenge."""
    try:
        line = session.input.next_response()
        if line is None:
            return None
        if line == b"*":
            raise Refused(501, "5.7.0", "Authentication aborted")
        event = session.waiting = Response(decode_response(line))
    except Refused as error:
        session.enter(_COMMAND)
        session.refuse(error.reply)
        return Response(None)
    return event


def _recipients_of(transaction: Transaction | None) -> tuple[Recipient, ...]:
    return () if transaction is None else tuple(transaction.recipients)
