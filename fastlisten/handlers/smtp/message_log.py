"""The log of messages: whose message it is, before what has become of it.

Rules of this file: the beginning of the text and the fields that all records of messages have; what
has become of a message its delivery says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastlisten.handlers.smtp.session_log import LogContext
from fastlisten.log_events import log
from fastlisten.mail.delivery_interface import Delivery

__all__ = ["MessageContext", "log_message"]

logger = logging.getLogger("fastlisten.smtp")


class MessageContext(NamedTuple):
    """The message that a record is about.

    Attributes:
        session: in which it came.
        delivery: where it goes.
        sender: the reverse path.
    """

    session: LogContext
    delivery: Delivery
    sender: str


def log_message(
    about: MessageContext,
    level: int,
    event: str,
    what: str,
    values: Sequence[object],
    fields: Mapping[str, object],
) -> None:
    """Log what has become of a message.

    Args:
        about: the message.
        level: as `logging` has it.
        event: the name of the event (docs/logging.md).
        what: a format, to be put after whose message it is.
        values: what the format names.
        fields: of the record, besides those that all have.
    """
    session, delivery, sender = about
    to = delivery.destinations()
    every = {
        **session.fields,
        "id": delivery.name,
        "from_": sender,
        "to": [name.removeprefix("<").removesuffix(">") for name in to],
        "user": session.user,
    }
    log(
        logger,
        level,
        event,
        "%s: %s from <%s> at %s%s to %s: " + what,
        session.listener,
        delivery.name,
        sender,
        session.address,
        f" as {session.user}" if session.user else "",
        ", ".join(to),
        *values,
        **{**every, **fields},
    )
