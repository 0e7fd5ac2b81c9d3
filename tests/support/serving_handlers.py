"""Handlers for test configurations: ``handler = "support.serving_handlers:Echo"``.

Rules of this file: handlers are small and keep what tests look at in attributes.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason


class EchoProtocol(asyncio.Protocol):
    """Sends back what it receives; it is busy between ``begin`` and ``end``."""

    def __init__(self, handler: Echo, info: ConnectionInfo) -> None:
        self.handler = handler
        self.info = info
        self.busy = False
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.handler.open.append(self)
        self.handler.made += 1

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.busy = b"begin" in self.received and b"end" not in self.received
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.handler.open.remove(self)


class Echo(Handler):
    """The client speaks first; Python objects are created at accept.

    Attributes:
        open: the protocol objects of open connections, oldest first.
        made: the number of connections so far.
        events: the calls of start and stop, in order.
    """

    name: ClassVar[str] = "echo"

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.open: list[EchoProtocol] = []
        self.made = 0
        self.events: list[str] = []

    def refusal(self, reason: Reason) -> bytes:
        return f"refused: {reason.value}\n".encode()

    def farewell(self, reason: Reason) -> bytes:
        return f"farewell: {reason.value}\n".encode()

    def notes(self) -> tuple[str, ...]:
        return ("it echoes",)

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return EchoProtocol(self, info)

    async def start(self) -> None:
        self.events.append("start")

    async def stop(self) -> None:
        self.events.append("stop")


class LazyEcho(Echo):
    """The same with a greeting; Python objects are created at the first byte."""

    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    greeting = b"hello\n"


class FloodProtocol(EchoProtocol):
    """Writes `Flood.size` octets at the first input and closes."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(bytes(Flood.size))
        self.transport.close()


class Flood(Echo):
    """Sends a lot and closes, so that the kernel is left with unsent data."""

    #: More than the client's receive buffer, less than the server's send buffer.
    size: ClassVar[int] = 300_000

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return FloodProtocol(self, info)


class NotReady(Echo):
    """Cannot start."""

    async def start(self) -> None:
        raise RuntimeError("the store is not there")


class NeverReady(Echo):
    """Waits in its start until that is cancelled.

    Attributes:
        waiting: those that wait at the moment.
    """

    waiting: ClassVar[set[Handler]] = set()

    async def start(self) -> None:
        self.waiting.add(self)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.waiting.remove(self)


class Picky(Handler):
    """Refuses its settings."""

    def __init__(self, settings: HandlerSettings) -> None:
        raise ValueError("no such store")


class WithoutSettings(Echo):
    """Forgets to call the __init__ of its base class."""

    def __init__(self, settings: HandlerSettings) -> None:
        pass


class WrongWords(Echo):
    """Returns a refusal that is not bytes."""

    def refusal(self, reason: Reason) -> Any:
        return "go away"


class WithoutProtocols(Handler):
    """Does not implement connection()."""


class ForgottenReturn(Echo):
    """Returns no protocol object."""

    def connection(self, info: ConnectionInfo) -> Any:
        super().connection(info)


class NeverEnds(Echo):
    """Fails when it is stopped."""

    async def stop(self) -> None:
        raise RuntimeError("the store is gone")


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each line in capitals."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()


async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Raise at the first line, with that line as the text."""
    raise ValueError((await reader.readline()).decode())


NOT_A_HANDLER = 3


def no_coroutine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Return at once."""
