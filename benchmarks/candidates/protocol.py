"""The one protocol that every Python candidate serves: greet, then send back what arrives.

Rules of this file: the least that a protocol can be. Its cost is in every Python figure alike.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

__all__ = ["Echo", "greeting_echo"]


class Echo(asyncio.Protocol):
    """Send back what arrives, after the greeting of the class, if it has one.

    Attributes:
        greeting: written in `connection_made`; empty where there is none, or where the server
            sends it natively.
        transport: the connection.
    """

    __slots__ = ("transport",)

    greeting: ClassVar[bytes] = b""
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and greet."""
        self.transport = cast(asyncio.Transport, transport)
        if self.greeting:
            self.transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


def greeting_echo(greeting: bytes) -> type[Echo]:
    """Return `Echo` with this greeting."""

    class GreetingEcho(Echo):
        """Greets first."""

        __slots__ = ()

    GreetingEcho.greeting = greeting
    return GreetingEcho
