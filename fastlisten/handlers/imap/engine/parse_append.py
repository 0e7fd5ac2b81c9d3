"""Parses what precedes a message in APPEND (RFC 3501 6.3.11, RFC 3502).

Rules of this file: a line up to the literal that is the message; the message is not here yet.
"""

from __future__ import annotations

from datetime import datetime

from fastlisten.handlers.imap.engine.commands import AppendMessage, Event
from fastlisten.handlers.imap.engine.dates import parse_date_time
from fastlisten.handlers.imap.engine.flags import parse_flags
from fastlisten.handlers.imap.engine.parse_mailboxes import parse_mailbox
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Literal, Scanner, announces

__all__ = ["parse_append", "parse_first_message", "parse_next_message"]


def parse_append(scanner: Scanner) -> Event:
    """Refuse APPEND that is complete without a message."""
    parse_mailbox(scanner)
    raise Refused("Missing message literal")


def parse_first_message(scanner: Scanner, literal: Literal, most: int) -> AppendMessage:
    """Read from the mailbox to the first message.

    Args:
        scanner: behind APPEND, with the line's CRLF.
        literal: what the line announces.
        most: octets that a message may have.

    Raises:
        Incomplete: the literal is the name of the mailbox.
        Refused: something is wrong.
    """
    mailbox = parse_mailbox(scanner)
    return _message(scanner, mailbox, literal, most, 0)


def parse_next_message(
    scanner: Scanner, mailbox: str, literal: Literal, most: int, index: int
) -> AppendMessage:
    """Read from the end of one message to the next.

    Args:
        scanner: behind the message, with the line's CRLF.
        mailbox: that the command has named.
        literal: what the line announces.
        most: octets that a message may have.
        index: of the message.

    Raises:
        Refused: something is wrong.
    """
    return _message(scanner, mailbox, literal, most, index)


def _message(
    scanner: Scanner, mailbox: str, literal: Literal, most: int, index: int
) -> AppendMessage:
    scanner.space()
    flags: tuple[str, ...] = ()
    date: datetime | None = None
    if scanner.next_is(b"("):
        flags = parse_flags(scanner)
        scanner.space()
    if scanner.next_is(b'"'):
        date = parse_date_time(scanner)
        scanner.space()
    if literal.binary:
        raise Refused("BINARY literals are not supported", "NO", "UNKNOWN-CTE")
    if literal.size > most:
        raise Refused(f"Message is larger than {most} octets", "NO", "TOOBIG")
    if not announces(scanner.data, scanner.position):
        raise Refused("Invalid arguments")
    if not literal.size:
        # RFC 3502: this is how a client cancels.
        raise Refused("Can't save a zero byte message", "NO")
    return AppendMessage(mailbox, flags, date, literal.size, index)
