"""smtp and lmtp: our own engine, what surrounds it, and aiosmtpd's handlers on it.

The way of a connection, by module:

    settings          the rows of `[smtp]` and `[lmtp]`
    handler           what all connections of a listener share
      early           waits before the greeting, if asked for
      connection      events of the engine in their order; AUTH
        flow          when something is executed: transport, flow control, TLS
        engine/       octets to events and replies, without I/O
        transactions  recipients
        messages      messages: to a mailbox or to the relay (mail/)
        reports       DSNs that senders asked for
      journal         what the log says of sessions; dialogue: their commands and replies
      aiosmtpd/       the same engine, its events answered by the hooks of an aiosmtpd handler

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
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
