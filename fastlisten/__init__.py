"""The listener layer of a mail server: TOML listeners in, served connections out."""

from __future__ import annotations

from fastlisten.errors import (
    ConfigurationError,
    FastlistenError,
    PeerError,
    Problem,
    SocketFailure,
    StartError,
)
from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason
from fastlisten.runtime.connection_server import ConnectionServer
from fastlisten.runtime.event_loop import new_event_loop, run
from fastlisten.runtime.listener import Listener, State
from fastlisten.runtime.loop import create_server
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
