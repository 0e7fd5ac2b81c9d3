"""The one protocol that every Python candidate serves: greet, then send back what arrives.

Rules of this file: the protocol is minimal. Its cost is part of every Python candidate's figures.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import ClassVar, cast

__all__ = ["Echo", "greeting_echo", "slow_every", "worker_greeting"]


class Echo(asyncio.Protocol):
    """Echo what arrives, after the greeting of the class, if it has one.

    Attributes:
        greeting: written in `connection_made`; empty if there is none or the core sends it.
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


def worker_greeting() -> bytes:
    """Return a greeting that ends with the id of this process, as ``loadgen --tally`` counts it."""
    return f"220 mail.example.org ESMTP ready {os.getpid()}\r\n".encode()


def slow_every(every: int, seconds: float, kind: type[Echo]) -> Callable[[], Echo]:
    """Return a factory of `kind` in which every n-th protocol is slow.

    Args:
        every: n.
        seconds: how long a slow protocol keeps the processor busy before each answer.
        kind: the protocol class.
    """

    class SlowEcho(kind):  # type: ignore[misc, valid-type]
        """Works first."""

        __slots__ = ()

        def data_received(self, data: bytes) -> None:
            """Work, then send it back."""
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            self.transport.write(data)

    made = itertools.count(1)
    return lambda: SlowEcho() if next(made) % every == 0 else kind()
