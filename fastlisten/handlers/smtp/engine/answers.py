"""The answers of the SMTP engine's user to its events, and what they do to a session.

Rules of this file: functions of the session, which do not look at the input. The methods of
`SmtpEngine` with the same names describe them. A function that answers first removes the event that
waits for the answer.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from typing import Any

from fastlisten.handlers.smtp.engine.command_table import carry_out
from fastlisten.handlers.smtp.engine.replies import (
    AUTHENTICATED,
    GO_AHEAD,
    OK,
    RECIPIENT_OK,
    SENDER_OK,
)
from fastlisten.handlers.smtp.engine.session_states import SessionState
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Command,
    Content,
    Mail,
    Recipient,
    Response,
    StartTls,
    Transaction,
)
from fastlisten.handlers.smtp.engine.smtp_session import Session

__all__ = ["accept", "answer", "challenge", "reject"]


# --- yes ------------------------------------------------------------------------------------------


def accept(session: Session, reply: bytes) -> None:
    """Answer the waiting event with yes."""
    event = session.waiting
    if event is None:
        raise RuntimeError("no event waits for an answer")
    session.waiting = None
    _ACCEPT[type(event)](session, event, reply)


def _accept_mail(session: Session, event: Mail, reply: bytes) -> None:
    session.transaction = event.transaction
    session.chunked = False
    session.unsent.append(reply or SENDER_OK)


def _accept_recipient(session: Session, event: Recipient, reply: bytes) -> None:
    assert session.transaction is not None
    session.transaction.recipients.append(event)
    session.unsent.append(reply or RECIPIENT_OK)


def _accept_content(session: Session, event: Content, reply: bytes) -> None:
    reply = session.for_each(reply or OK)
    session.transaction = None
    session.take_message()
    session.unsent.append(reply)


def _accept_tls(session: Session, event: StartTls, reply: bytes) -> None:
    if session.input.buffered:
        session.hang_up(session.limits.too_early)
        return
    session.unsent.append(reply or GO_AHEAD)
    session.enter(SessionState.SECURING)
    session.forget()


def _accept_login(session: Session, event: Auth | Response, reply: bytes) -> None:
    session.limits.counts.login("succeeded")
    session.unsent.append(reply or AUTHENTICATED)
    if session.state is SessionState.DIALOGUE:
        session.enter(SessionState.COMMAND)
    session.authenticated = True
    session.locked = False


#: For each kind of event that is answered: what follows if it is accepted.
_ACCEPT: dict[type, Callable[[Session, Any, bytes], None]] = {
    Auth: _accept_login,
    Command: carry_out,
    Content: _accept_content,
    Mail: _accept_mail,
    Recipient: _accept_recipient,
    Response: _accept_login,
    StartTls: _accept_tls,
}


# --- no -------------------------------------------------------------------------------------------


def reject(session: Session, reply: bytes) -> None:
    """Answer the waiting event with no."""
    event, session.waiting = session.waiting, None
    if event is None:
        raise RuntimeError("no event waits for an answer")
    transaction = session.transaction
    recipients: tuple[Recipient, ...] = ()
    if isinstance(event, Recipient):
        recipients = (event,)
    elif isinstance(event, Content):
        reply = session.for_each(reply)
        if transaction is not None:
            recipients = tuple(transaction.recipients)
        session.transaction = None
        session.limits.counts.message("deferred" if reply[:1] == b"4" else "rejected")
    elif isinstance(event, Mail):
        transaction = event.transaction
    elif isinstance(event, Auth | Response):
        _count_login(session, reply)
        if session.state is SessionState.DIALOGUE:
            session.enter(SessionState.COMMAND)
    if reply.startswith(b"421"):
        session.hang_up(reply, recipients, transaction)
    elif isinstance(event, Recipient) and reply.startswith(b"5"):
        session.rejected += 1
        if session.rejected > session.limits.max_recipients:
            session.hang_up(session.limits.too_many_rejected, recipients)
        else:
            _say(session, reply, recipients, None)
    else:
        session.refuse(reply, recipients, transaction)


def _count_login(session: Session, reply: bytes) -> None:
    """Count a login that was refused; a command that was none has been no login."""
    if reply.startswith(b"535"):
        session.limits.counts.login("failed")
    elif reply.startswith(b"4"):
        session.limits.counts.login("deferred")


# --- neither, or both -----------------------------------------------------------------------------


def challenge(session: Session, question: bytes) -> None:
    """Answer the waiting Auth or Response with a question."""
    if not isinstance(session.waiting, Auth | Response):
        raise RuntimeError("no step of an AUTH dialogue waits for an answer")
    session.waiting = None
    session.unsent.append(b"334 " + binascii.b2a_base64(question, newline=False) + b"\r\n")
    session.enter(SessionState.DIALOGUE)


def answer(session: Session, answers: Sequence[bytes]) -> None:
    """Answer the waiting final Content, in LMTP for each recipient by itself."""
    transaction = session.transaction
    if not isinstance(session.waiting, Content) or transaction is None:
        raise RuntimeError("no message waits for an answer")
    if len(answers) != (len(transaction.recipients) if session.lmtp else 1):
        raise ValueError("in LMTP each recipient needs a reply, in SMTP the message needs one")
    session.waiting = None
    kinds = {reply[:1] for reply in answers}
    if b"2" in kinds:
        session.take_message()
    else:
        session.limits.counts.message("deferred" if b"4" in kinds else "rejected")
    everybody = tuple(transaction.recipients)
    whom = [(recipient,) for recipient in everybody] if session.lmtp else [everybody]
    for reply, recipients in zip(answers[:-1], whom[:-1], strict=True):
        _say(session, reply, recipients, None)
    session.transaction = None
    closing = [reply for reply in answers if reply.startswith(b"421")]
    if closing:
        session.hang_up(answers[-1], whom[-1], transaction)
    elif kinds == {b"5"}:
        session.refuse(answers[-1], whom[-1], transaction)
    else:
        _say(session, answers[-1], whom[-1], transaction)


def _say(
    session: Session,
    reply: bytes,
    recipients: tuple[Recipient, ...],
    transaction: Transaction | None,
) -> None:
    """Give a reply that ends nothing and is no error of the client's."""
    if not reply.startswith(b"2"):
        session.note(reply, recipients, transaction)
    session.unsent.append(reply)
