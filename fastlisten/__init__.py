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
from fastlisten.runtime.listener import Listener, State
from fastlisten.runtime.loop import ConnectionServer, create_server
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
]

__version__ = "0.1.0"
