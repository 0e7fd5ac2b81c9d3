"""The commands of RFC 5321: which reply, in which order, with which effect on the session.

Rules of this file: a function per command, called with the session, the verb in upper case and
what follows it. It returns the event that the command gives, if any, and raises `Refused` if the
command is not carried out. `*_reply` returns the usual reply without carrying the command out.
What came after RFC 5321 is in extension_commands.py.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine import command_syntax
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import (
    NOT_IMPLEMENTED,
    NOT_VERIFIED,
    OK,
    START,
    TOO_MANY,
    UNKNOWN,
)
from fastlisten.handlers.smtp.engine.session_states import SessionState
from fastlisten.handlers.smtp.engine.smtp_events import Event, Mail
from fastlisten.handlers.smtp.engine.smtp_session import Session
from fastlisten.handlers.smtp.engine.verbs import HTTP_VERBS, NOT_HERE

__all__ = [
    "data",
    "hello",
    "hello_reply",
    "help_",
    "help_reply",
    "mail",
    "no_argument",
    "noop",
    "noop_reply",
    "quit_",
    "quit_reply",
    "rcpt",
    "rset",
    "rset_reply",
    "unknown",
    "vrfy",
    "vrfy_reply",
]

_CONTENT = SessionState.CONTENT


def no_argument(verb: bytes, argument: bytes) -> None:
    """Refuse a command that has an argument and may have none."""
    if argument:
        raise Refused(501, "5.5.4", f"Syntax: {verb.decode()} (no parameters allowed)")


# --- the session ----------------------------------------------------------------------------------


def _welcome(session: Session, verb: bytes) -> bytes:
    limits = session.limits
    if verb == b"HELO":
        return limits.helo
    return limits.ehlo_encrypted if session.encrypted else limits.ehlo


def hello_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """EHLO, HELO, LHLO."""
    command_syntax.parse_client_name(argument)
    return _welcome(session, verb)


def hello(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """EHLO, HELO, LHLO."""
    session.client_name = command_syntax.parse_client_name(argument)
    session.extended = verb != b"HELO"
    session.unsent.append(_welcome(session, verb))
    return session.reset()


def noop_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """NOOP."""
    return OK


def noop(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """NOOP."""
    session.unsent.append(OK)
    return None


def vrfy_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """VRFY."""
    if not argument:
        raise Refused(501, "5.5.4", "Syntax: VRFY address")
    if session.locked:
        raise session.out_of_order("")
    return NOT_VERIFIED


def vrfy(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """VRFY."""
    session.unsent.append(vrfy_reply(session, verb, argument))
    return None


def help_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """HELP."""
    return session.limits.help_encrypted if session.encrypted else session.limits.help


def help_(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """HELP."""
    session.unsent.append(help_reply(session, verb, argument))
    return None


def quit_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """QUIT."""
    no_argument(verb, argument)
    return session.limits.goodbye


def quit_(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """QUIT."""
    session.hang_up(quit_reply(session, verb, argument))
    return None


def unknown(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """Whatever is no command here."""
    if verb in HTTP_VERBS:
        session.hang_up(session.limits.other_protocol)
    else:
        session.refuse(NOT_IMPLEMENTED if verb in NOT_HERE else UNKNOWN)
    return None


# --- the transaction ------------------------------------------------------------------------------


def mail(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """MAIL."""
    if not session.client_name:
        raise Refused(503, "5.5.1", f"Send {'LHLO' if session.lmtp else 'EHLO'} first")
    if session.locked:
        raise session.out_of_order("")
    if session.transaction is not None:
        raise Refused(503, "5.5.1", "Nested MAIL command")
    transaction = command_syntax.parse_mail(
        argument, session.extended, session.limits, session.encrypted
    )
    event = session.waiting = Mail(transaction)
    return event


def rcpt(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """RCPT."""
    transaction = session.transaction
    if transaction is None:
        raise session.out_of_order("MAIL")
    if session.chunked:
        raise Refused(503, "5.5.1", "RCPT after BDAT")
    event = command_syntax.parse_recipient(argument, session.extended, transaction.smtputf8)
    if len(transaction.recipients) >= session.limits.max_recipients:
        session.note(TOO_MANY, (event,))
        session.unsent.append(TOO_MANY)
        return None
    session.waiting = event
    return event


def data(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """DATA."""
    no_argument(verb, argument)
    transaction = session.transaction
    if transaction is None:
        raise session.out_of_order("MAIL")
    if not transaction.recipients:
        raise session.no_recipients()
    if session.chunked or transaction.body == "BINARYMIME":
        # RFC 3030 2 and 3. The transaction goes on.
        why = "DATA after BDAT" if session.chunked else "BODY=BINARYMIME requires BDAT"
        raise Refused(503, "5.5.1", why)
    session.unsent.append(START)
    session.enter(_CONTENT)
    session.size = 0
    session.input.begin_content()
    return None


def rset_reply(session: Session, verb: bytes, argument: bytes) -> bytes:
    """RSET."""
    no_argument(verb, argument)
    return OK


def rset(session: Session, verb: bytes, argument: bytes) -> Event | None:
    """RSET."""
    session.unsent.append(rset_reply(session, verb, argument))
    return session.reset()
