"""smtp and lmtp: our own engine, the handlers that use it, and handlers written for aiosmtpd.

The modules, from the listener down to the octets:

    settings              the rows of `[smtp]` and `[lmtp]`; checks: what must hold between them
    role                  mx or submission
    handler               what all connections of a listener share
      pregreet            smtp.greeting-delay: clients that talk before the greeting
      engine_protocol     transport, flow control, STARTTLS
      engine_user         what a connection and a session know of each other
      mail_session        the engine's events in their order
        sender_check      MAIL: which senders are accepted from users
        auth_exchange     AUTH (sasl)
        incoming_message  the message on its way to its delivery (mail/)
      engine/             octets to events and replies, without I/O
      trace_fields        Received; received_count: detects mail loops
      session_log         the log of sessions; dialogue_log: their commands and replies;
                          message_log: what becomes of messages
      aiosmtpd/           the same engine, its events answered by the hooks of an aiosmtpd handler

The public names are imported when somebody asks for them, so that reading a configuration loads no
event loop and no native module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlisten.handlers.smtp.aiosmtpd.controller import (
        Controller,
        UnixSocketController,
        UnixSocketUnthreadedController,
        UnthreadedController,
        serve_smtp,
    )
    from fastlisten.handlers.smtp.handler import LmtpHandler, SmtpHandler

__all__ = [
    "Controller",
    "LmtpHandler",
    "SmtpHandler",
    "UnixSocketController",
    "UnixSocketUnthreadedController",
    "UnthreadedController",
    "serve_smtp",
]

#: Those of __all__ that are not aiosmtpd's.
_HANDLERS = frozenset({"LmtpHandler", "SmtpHandler"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "handler" if name in _HANDLERS else "aiosmtpd.controller"
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
