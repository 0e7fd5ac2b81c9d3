"""What became of a message, for the recipients whose sender asked to be told (NOTIFY=SUCCESS).

Rules of this file: shapes and decisions about recipients; no texts and no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastlisten.mail.envelope import EnvelopeRecipient

__all__ = ["Outcome", "delivered", "relayed", "wanted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the message for some of its recipients.

    Attributes:
        action: ``delivered`` or ``relayed`` (RFC 3464 2.3.3).
        status: the enhanced status code (RFC 3463).
        recipients: for whom.
        remote: the relay's name, empty for none.
    """

    action: str
    status: str
    recipients: Sequence[EnvelopeRecipient]
    remote: str = ""


def wanted(recipients: Iterable[EnvelopeRecipient]) -> list[EnvelopeRecipient]:
    """Return the recipients for which a DSN of success was asked for."""
    return [recipient for recipient in recipients if "SUCCESS" in recipient.notify]


def delivered(recipients: Iterable[EnvelopeRecipient]) -> Outcome:
    """Return the outcome for recipients whose mailboxes have the message."""
    return Outcome("delivered", "2.0.0", wanted(recipients))


def relayed(recipients: Iterable[EnvelopeRecipient], host: str) -> Outcome:
    """Return the outcome for recipients whose mail a relay without DSN (RFC 3461) has taken."""
    return Outcome("relayed", "2.1.9", wanted(recipients), host)
