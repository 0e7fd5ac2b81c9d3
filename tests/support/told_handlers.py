"""Handlers for servers with several workers: they say which process serves, and obey files.

Rules of this file: a directory in the environment variable TOLD has what tests tell the handlers,
and what these tell the tests.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import cast

from fastlisten.handlers.base import ConnectionInfo, Handler, Reason

__all__ = ["Told", "Who"]

TOLD = Path(os.environ.get("TOLD", "."))

# Which processes have imported this module, and as which user.
with (TOLD / "imports").open("a") as imports:
    imports.write(f"{os.getpid()} {os.geteuid()}\n")


class WhoProtocol(asyncio.Protocol):
    """Greets with its process id; then it echoes, and is busy between ``begin`` and ``end``.

    For ``crash`` the process crashes, for ``block SECONDS`` it stands still.
    """

    busy = False

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        if b"crash" in data:
            os.abort()  # SIGSEGV would be a report in a sanitized build
        if data.startswith(b"block "):
            time.sleep(float(data[6:]))
        self.busy = (self.busy or b"begin" in data) and b"end" not in data
        self.transport.write(data)


class Who(Handler):
    """Says who serves."""

    def greet(self) -> bytes:
        return b"%d\n" % os.getpid()

    def refusal(self, reason: Reason) -> bytes:
        return f"refused: {reason.value}\n".encode()

    def farewell(self, reason: Reason) -> bytes:
        return f"farewell: {reason.value}\n".encode()

    def notes(self) -> tuple[str, ...]:
        return ("it says who",)

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return WhoProtocol(self.greet())


class Told(Who):
    """Does not start while there is a file ``slow``, and cannot while there is one ``broken``.

    If the latter has a process id, only that process cannot. It ends with the exit code in
    ``exit``. There is a file ``starts`` once one has begun to wait.
    """

    async def start(self) -> None:
        while (TOLD / "slow").exists():
            (TOLD / "starts").touch()
            await asyncio.sleep(0.01)
        broken = TOLD / "broken"
        if broken.exists() and broken.read_text() in ("", str(os.getpid())):
            raise RuntimeError("the store is broken")
        if (TOLD / "exit").exists():
            os._exit(int((TOLD / "exit").read_text()))
