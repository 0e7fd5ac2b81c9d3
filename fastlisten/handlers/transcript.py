"""Writes the dialogue of a mail session to the log, for smtp, lmtp and imap.

Rules of this file: texts and fields; what of the dialogue may be logged is up to each protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastlisten.log_events import address_text, log

__all__ = ["Transcript", "transcript"]

logger = logging.getLogger("fastlisten.dialogue")

#: Called with a line, and before it whether the client sent it.
Transcript = Callable[[bool, str], None]


def transcript(listener: str, peer: str, port: int, session: str) -> Transcript:
    """Return a function that logs a session's dialogue to the logger ``fastlisten.dialogue``."""
    fields = {"listener": listener, "peer": peer, "port": port, "session": session}
    address = address_text(peer, port)

    def tell(client: bool, line: str) -> None:
        side = "client" if client else "server"
        text, values = "%s: %s %s: %s", (listener, address, side[0].upper(), line)
        log(logger, logging.INFO, "dialogue", text, *values, **fields, side=side, line=line)

    return tell
