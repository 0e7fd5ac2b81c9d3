"""Delivery: the one way in which a message goes anywhere, whatever brings it and wherever it goes.

    begin ──> add_recipient ... ──> add ... ──> commit ──> a reply for each accepted recipient
                  │                   │            │
                  └ refused: a reply  └────────────┴── abort: nobody gets it

Rules of this file: shapes, no behaviour. Three implement `Delivery`: `MailboxDelivery`
(delivery/mailbox_delivery.py) into the mailboxes here, `RelayDelivery` (relay/relay_delivery.py)
to the relay and into mailboxes, and `HookDelivery` (handlers/smtp/aiosmtpd/) to the hooks of an
aiosmtpd handler. What brings messages (SMTP, LMTP) knows nothing else of where they go.

Everything is called on one loop, and nothing waits. A method that can answer at once returns the
answer; one that cannot returns None, and the owner gets it later. A positive reply to `commit` is
a promise: the message is durable, or somebody else has taken it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import EnvelopeRecipient
from fastlisten.mail.reply import Reply

__all__ = ["Delivery", "DeliveryOwner", "LoggingOwner"]


class Delivery(Protocol):
    """One message on its way. After `commit` has been answered, or `abort`, it is over."""

    @property
    def name(self) -> str:
        """The message's name in trace fields, logs and replies; fixed once it is asked for."""

    def add_recipient(self, recipient: EnvelopeRecipient) -> Reply | None:
        """Ask for a recipient; before the first `add`, one at a time.

        Returns:
            Whether it is accepted; None: the owner's `recipient_answered` will be called.
        """

    def add(self, data: bytes) -> None:
        """Append octets to the message; after an error they are dropped."""

    @property
    def full(self) -> bool:
        """Whether to wait for the owner's `delivery_resumed` before more is added.

        Not a limit: whatever is added all the same is taken, and takes memory.
        """

    def commit(self) -> Sequence[Reply] | None:
        """Deliver the message, which is whole.

        Returns:
            A reply for each accepted recipient, in their order; None: the owner's
            `message_answered` will be called. Where one reply stands for all (SMTP), they are
            equal, and all recipients get the message or none does.
        """

    def abort(self) -> None:
        """Drop the message, unless it has been delivered. The owner hears no more of it."""

    def outcomes(self) -> Sequence[Outcome]:
        """Return what DSNs of success (RFC 3461) may tell the sender, once it is committed."""

    def destinations(self) -> list[str]:
        """Return where the message goes, for logs: names of accounts, ``<addresses>`` elsewhere."""


class DeliveryOwner(Protocol):
    """The code that has begun a delivery and waits for its results."""

    def recipient_answered(self, reply: Reply) -> None:
        """Take the answer to the last `add_recipient`."""

    def delivery_resumed(self) -> None:
        """Continue, because `full` may have become false."""

    def message_answered(self, replies: Sequence[Reply]) -> None:
        """Take the answers to `commit`."""


class LoggingOwner(DeliveryOwner, Protocol):
    """An owner that logs what happens to its messages; deliveries into mailboxes need one."""

    def log(self, level: int, event: str, what: str, *values: object, **fields: object) -> None:
        """Log what happens to the message, with what the owner knows about it.

        Args:
            level: as `logging` has it.
            event: the name of the event (docs/logging.md).
            what: a format, to be put after whose message it is.
            values: what the format names.
            fields: of the record, besides the owner's.
        """

    def log_fault(self) -> None:
        """Log the exception that is being handled: a fault of the code."""
