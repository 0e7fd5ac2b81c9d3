"""Logs problems with a relay.

Rules of this file: two functions; what happens to a message is logged by its delivery.
"""

from __future__ import annotations

import logging

from fastlisten.log_events import log
from fastlisten.mail.relay.relay import RelaySettings

__all__ = ["log_relay", "log_relay_failure"]

logger = logging.getLogger("fastlisten.smtp")


def log_relay_failure(settings: RelaySettings, why: str) -> None:
    """Log that the relay cannot be used."""
    relay, text = str(settings), "relay %s: %s"
    log(logger, logging.WARNING, "relay-failed", text, relay, why, relay=relay, error=why)


def log_relay(settings: RelaySettings, event: str, what: str, **why: str) -> None:
    """Log something worth knowing about the relay, with its reason.

    Args:
        settings: the relay's.
        event: the name of the event.
        what: the text.
        why: the reason, by the name of its field.
    """
    relay, text, (reason,) = str(settings), "relay %s: %s: %s", why.values()
    log(logger, logging.INFO, event, text, relay, what, reason, relay=relay, **why)
