"""smtp and lmtp: our own engine, the handlers that use it, and handlers written for aiosmtpd.

The modules, from the listener down to the octets:

    settings              the rows of `[smtp]` and `[lmtp]`; checks: what must hold between them
    role                  mx or submission
    handler               what all connections of a listener share
      pregreet            smtp.greeting-delay: clients that talk before the greeting
      smtp_connection     the engine's events in their order; AUTH (sasl)
        envelope_checks   MAIL and RCPT: which senders and recipients are accepted
        message_delivery  the message: to mailboxes or to the relay (mail/)
        background_work   tasks that the engine waits for
        engine_protocol   transport, flow control, STARTTLS
        engine/           octets to events and replies, without I/O
      trace_fields        Return-Path and Received; received_count: detects mail loops
      session_log         the log of sessions; dialogue_log: their commands and replies
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
