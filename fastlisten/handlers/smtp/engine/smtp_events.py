"""The events that the SMTP engine reports to its user.

Rules of this file: data only, no behaviour. The type of an event tells what has happened; its
docstring says whether the user must answer it. Text from clients is kept as they wrote it, unless a
field's description says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastlisten.mail.envelope import Envelope, EnvelopeRecipient

__all__ = [
    "Auth",
    "Command",
    "Content",
    "Event",
    "Flush",
    "Goodbye",
    "Mail",
    "Recipient",
    "Refusal",
    "Reset",
    "Response",
    "StartTls",
    "Transaction",
]


@dataclass(slots=True)
class Recipient(EnvelopeRecipient):
    """RCPT TO, well-formed and in order. To be answered; kept in its transaction if accepted.

    Attributes:
        words: all parameters as the client wrote them.
    """

    words: tuple[str, ...] = ()


@dataclass(slots=True)
class Transaction(Envelope):
    """One mail transaction, from an accepted MAIL to the reply to its data.

    Attributes:
        words: all parameters of MAIL as the client wrote them.
        recipients: the accepted ones.
    """

    recipients: list[Recipient] = field(default_factory=list)
    words: tuple[str, ...] = ()


@dataclass(slots=True)
class StartTls:
    """STARTTLS, in order. To be answered; if accepted, write the replies and begin the handshake.

    A transaction in progress is over if it is accepted, without a Reset.
    """


@dataclass(slots=True)
class Auth:
    """AUTH, in order, with a mechanism that is offered. To be answered, possibly by a challenge.

    Attributes:
        mechanism: its name in upper case.
        response: the initial response, decoded; None if there is none.
    """

    mechanism: str
    response: bytes | None = field(repr=False)  # passwords do not belong into logs


@dataclass(slots=True)
class Response:
    """What the client says to a challenge. To be answered, possibly by another, unless over.

    Attributes:
        data: its line, decoded. None: the dialogue is over, because the client cancelled it or
            its line was bad; it has been told so, and nothing is to be answered.
    """

    data: bytes | None = field(repr=False)


@dataclass(slots=True)
class Command:
    """A command of which the user wishes to be told (`Limits.told`), in order. To be answered.

    What it does happens when it is accepted, and does not when it is rejected. A transaction in
    progress is over if an EHLO, HELO, LHLO or RSET is accepted, without a Reset; a QUIT that is
    accepted is followed by Goodbye.

    Attributes:
        verb: EHLO, HELO, LHLO, RSET, NOOP, VRFY, HELP or QUIT.
        argument: what follows the verb, octets that are not UTF-8 replaced.
        usual: the reply that is given if none is named.
    """

    verb: str
    argument: str
    usual: bytes


@dataclass(slots=True)
class Mail:
    """MAIL FROM, well-formed and in order. To be answered."""

    transaction: Transaction


@dataclass(slots=True)
class Content:
    """A piece of the message, unstuffed, with its CRLFs.

    A message that came by BDAT need not end with a CRLF, and with BODY=BINARYMIME it is no text.

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


@dataclass(slots=True)
class Refusal:
    """A negative reply that was given. No event: the engine keeps them in `refusals`.

    Attributes:
        reply: complete; in LMTP perhaps once for each recipient.
        verb: the command, in upper case, whatever the client wrote; empty for what is none.
        reason: one of the words of `reasons.reason_of`.
        sender: the reverse path of the transaction, None outside of one.
        recipients: those that it is about.
    """

    reply: bytes
    verb: bytes
    reason: str
    sender: str | None
    recipients: tuple[Recipient, ...]


Event = StartTls | Auth | Response | Command | Mail | Recipient | Content | Reset | Flush | Goodbye
