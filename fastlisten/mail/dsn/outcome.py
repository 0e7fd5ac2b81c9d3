"""What became of a message, for the recipients whose sender asked to be told (NOTIFY=SUCCESS).

Rules of this file: decisions about recipients; no texts and no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastlisten.mail.envelope import EnvelopeRecipient
from fastlisten.mail.relay.session import RelaySession

__all__ = ["Outcome", "outcomes", "wanted"]


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


def wanted(recipients: Sequence[EnvelopeRecipient]) -> list[EnvelopeRecipient]:
    """Return the recipients for which a DSN of success was asked for."""
    return [recipient for recipient in recipients if "SUCCESS" in recipient.notify]


def outcomes(
    recipients: Sequence[EnvelopeRecipient],
    failed: Sequence[EnvelopeRecipient],
    session: RelaySession | None,
) -> list[Outcome]:
    """Return what the sender of a message is to be told.

    Args:
        recipients: all that were accepted.
        failed: those of them who did not get the message.
        session: the session in which the relay took the message; None if there was none.
    """
    relayed = [] if session is None else session.recipients
    others = {id(recipient) for recipient in (*relayed, *failed)}
    local = [recipient for recipient in recipients if id(recipient) not in others]
    found = [Outcome("delivered", "2.0.0", wanted(local))]
    if session is not None and not session.relays_dsn:
        found.append(Outcome("relayed", "2.1.9", wanted(relayed), session.host))
    return found
