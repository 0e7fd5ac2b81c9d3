"""Handlers for `fastlisten serve` with several workers: greet with the worker's id, then echo.

Rules of this file: the eager handler serves the protocol of the other candidates, whose greeting is
written in `connection_made`. The greeting of the lazy one is sent by the core.
"""

from __future__ import annotations

import asyncio

from benchmarks.candidates.protocol import greeting_echo, worker_greeting
from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings

__all__ = ["Eager", "Lazy"]


class Eager(Handler):
    """Creates the protocol object at accept; it greets."""

    server_speaks_first = True

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self._factory = greeting_echo(worker_greeting())

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object."""
        return self._factory()


class Lazy(Handler):
    """Creates the protocol object at the first byte."""

    server_speaks_first = True
    lazy = True

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.greeting = worker_greeting()
        self._factory = greeting_echo(b"")

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object."""
        return self._factory()
