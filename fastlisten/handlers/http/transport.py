"""What is known of a connection's two ends, in the words of HTTP; and a transport that lingers.

Rules of this file: nothing of uvicorn, and no I/O.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from fastlisten.addresses import unmapped
from fastlisten.handlers.base import ConnectionInfo
from fastlisten.log_events import address_text

__all__ = ["Lingering", "client_name", "server_address"]


def client_name(info: ConnectionInfo) -> str:
    """Return a connection's name in logs: listener, address and port of the client."""
    return f'listener "{info.listener}": {address_text(info.peer, info.port)}'


def server_address(transport: asyncio.BaseTransport) -> tuple[str, int | None] | None:
    """Return ASGI's ``server``: address and port, or the path of a Unix socket and None."""
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return (unmapped(name[0]), name[1])
    return (os.fsdecode(name), None) if name else None


class Lingering:
    """A transport whose `close` is another function; all else is as it was.

    Args:
        transport: the real one.
        close: called instead of its `close`.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
