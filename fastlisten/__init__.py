"""The listener layer of a mail server, usable as a program and as a library.

Rules of this file: public names, and the modules that define them. A module is imported when one of
its names is first used. Importing everything takes a quarter of a second, and `fastlisten serve`
must handle signals before that; `fastlisten check` never needs an event loop.
"""

from __future__ import annotations

import importlib

# For type checkers. Importing typing would take longer than the rest of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fastlisten.errors import (
        ConfigurationError,
        FastlistenError,
        PeerError,
        Problem,
        SocketFailure,
        StartError,
    )
    from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason
    from fastlisten.loop.connection_server import ConnectionServer
    from fastlisten.loop.create_server import create_server
    from fastlisten.loop.event_loop import new_event_loop, run
    from fastlisten.runtime.listener import Listener, State
    from fastlisten.runtime.server import Server

__all__ = [
    "ConfigurationError",
    "ConnectionInfo",
    "ConnectionServer",
    "FastlistenError",
    "Handler",
    "HandlerSettings",
    "Listener",
    "PeerError",
    "Problem",
    "Reason",
    "Server",
    "SocketFailure",
    "StartError",
    "State",
    "create_server",
    "new_event_loop",
    "run",
]

__version__ = "0.1.0"

_HOMES = {
    "fastlisten.errors": (
        "ConfigurationError",
        "FastlistenError",
        "PeerError",
        "Problem",
        "SocketFailure",
        "StartError",
    ),
    "fastlisten.handlers.base": ("ConnectionInfo", "Handler", "HandlerSettings", "Reason"),
    "fastlisten.loop.connection_server": ("ConnectionServer",),
    "fastlisten.loop.event_loop": ("new_event_loop", "run"),
    "fastlisten.runtime.listener": ("Listener", "State"),
    "fastlisten.loop.create_server": ("create_server",),
    "fastlisten.runtime.server": ("Server",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
