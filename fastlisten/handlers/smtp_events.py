"""What the SMTP engine tells its user.

Rules of this file: shapes, no behaviour. Events are told apart by their type.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastlisten.mail.address import Mailbox

__all__ = [
    "Content",
    "Event",
    "Flush",
    "Goodbye",
    "Mail",
    "Recipient",
    "Reset",
    "StartTls",
    "Transaction",
]


@dataclass(slots=True)
class Transaction:
    """One mail transaction, from an accepted MAIL to the reply to its data.

    Attributes:
        sender: the reverse path, empty for ``<>``.
        size: what the client declared by SIZE, in octets, 0 if nothing.
        body: ``7BIT`` or ``8BITMIME`` as declared by BODY, empty if nothing.
        smtputf8: the client asked for SMTPUTF8 (RFC 6531).
        recipients: the accepted ones, in order.
    """

    sender: str
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    recipients: list[Mailbox] = field(default_factory=list)


@dataclass(slots=True)
class StartTls:
    """STARTTLS, in order. To be answered; if accepted, write the replies and begin the handshake.

    A transaction in progress is over if it is accepted, without a Reset.
    """


@dataclass(slots=True)
class Mail:
    """MAIL FROM, well-formed and in order. To be answered."""

    transaction: Transaction


@dataclass(slots=True)
class Recipient:
    """RCPT TO, well-formed and in order. To be answered."""

    mailbox: Mailbox


@dataclass(slots=True)
class Content:
    """A piece of the message, unstuffed, with its CRLFs.

    Attributes:
        data: the octets, possibly none.
        final: the message is whole now. To be answered if true.
    """

    data: bytes
    final: bool


@dataclass(slots=True)
class Reset:
    """The transaction is over without a message; what was kept of it is to be forgotten."""


@dataclass(slots=True)
class Flush:
    """Many replies have gathered: they should be written before more commands are executed."""


@dataclass(slots=True)
class Goodbye:
    """The last reply has been given: write it and close. Nothing follows."""


Event = StartTls | Mail | Recipient | Content | Reset | Flush | Goodbye
