"""A connection's addresses as ASGI and the access log write them.

Rules of this file: no I/O.
"""

from __future__ import annotations

import asyncio
import os

from fastlisten.addresses import unmapped
from fastlisten.handlers.base import ConnectionInfo
from fastlisten.log_events import address_text

__all__ = ["client_name", "server_address"]


def client_name(info: ConnectionInfo) -> str:
    """Return a connection's name in logs: listener, address and port of the client."""
    return f'listener "{info.listener}": {address_text(info.peer, info.port)}'


def server_address(transport: asyncio.BaseTransport) -> tuple[str, int | None] | None:
    """Return ASGI's ``server``: address and port, or the path of a Unix socket and None."""
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return (unmapped(name[0]), name[1])
    return (os.fsdecode(name), None) if name else None
