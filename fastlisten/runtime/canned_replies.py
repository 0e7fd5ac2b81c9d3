"""Canned replies: what the native core sends to clients without running Python.

Rules of this file: the handler supplies the text. With implicit TLS, greeting and farewells are
encrypted, but a refusal comes before the handshake, when nothing may be sent in clear text; a fatal
alert is sent instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastlisten.errors import FastlistenError
from fastlisten.handlers.base import Handler, Reason

__all__ = ["TLS_ALERT", "CannedReplies"]

#: A TLS record (RFC 8446 5.1, 6): alert, version 3.3, length 2, fatal, internal_error(80). Clients
#: report it as a server-side failure and may retry, unlike handshake_failure.
TLS_ALERT = bytes((21, 3, 3, 0, 2, 2, 80))


@dataclass(frozen=True, slots=True)
class CannedReplies:
    """Everything that the core sends by itself on a listener's connections.

    Attributes:
        greeting: at accept.
        refusal: when max-connections is reached.
        overload: when the process is out of descriptors.
        farewell_first_byte: when `timeout.first-byte` expires.
        farewell_idle: when `timeout.idle` expires.
        farewell_shutdown: when the server drains.
    """

    greeting: bytes
    refusal: bytes
    overload: bytes
    farewell_first_byte: bytes
    farewell_idle: bytes
    farewell_shutdown: bytes

    @classmethod
    def of(cls, handler: Handler) -> CannedReplies:
        """Ask a handler for its replies.

        Raises:
            FastlistenError: the handler returned something other than bytes.
        """
        clear = not handler.settings.tls_implicit
        replies = {
            "greeting": handler.greeting,
            "refusal": handler.refusal(Reason.LIMIT) if clear else TLS_ALERT,
            "overload": handler.refusal(Reason.OVERLOAD) if clear else TLS_ALERT,
            "farewell_first_byte": handler.farewell(Reason.FIRST_BYTE),
            "farewell_idle": handler.farewell(Reason.IDLE),
            "farewell_shutdown": handler.farewell(Reason.SHUTDOWN),
        }
        for name, text in replies.items():
            if not isinstance(text, bytes):
                raise FastlistenError(
                    f'listener "{handler.settings.listener}": the {name.replace("_", " ")} of '
                    f"{type(handler).__name__} must be bytes, not {type(text).__name__}"
                )
        return cls(**replies)
