"""A protocol that begins TLS in the middle of a connection, and clients that ask for it.

Rules of this file: when the protocol receives the command it replies in plaintext and calls
start_tls(); everything that it receives after that call must have come through TLS.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastlisten._tls import TlsSettings
from support.tls_contexts import server_context
from support.tls_world import TlsClient, TlsRecorder, TlsWorld, spelled
from support.world import Hook

COMMAND = b"STARTTLS\r\n"
GO_AHEAD = b"220 go\r\n"


class Starter(TlsRecorder):
    """Begins TLS at `COMMAND`.

    Attributes:
        plaintext: what was received before TLS.
        future: the future that start_tls returned.
    """

    future: asyncio.Future[Any] | None = None

    def __init__(
        self,
        world: TlsWorld,
        hooks: dict[str, Hook] | None = None,
        *,
        answer: bytes = GO_AHEAD,
        **settings: Any,
    ) -> None:
        super().__init__(world, hooks)
        self.plaintext = b""
        self.answer = answer
        self.settings = TlsSettings(server_context(), **settings)

    def data_received(self, data: bytes) -> None:
        if self.future is not None:
            super().data_received(data)
            return
        self.plaintext += data
        if COMMAND in self.plaintext:
            self.start()

    def start(self) -> None:
        """Send the go-ahead and call start_tls."""
        self.transport.write(self.answer)
        self.future = self.transport.start_tls(self.settings)
        self.future.add_done_callback(self.started)

    def started(self, future: asyncio.Future[Any]) -> None:
        """Take the new transport, or note the failure."""
        if future.cancelled():
            self.world.note("cancelled")
        elif future.exception() is not None:
            self.world.note("failed", spelled(future.exception()))
        else:
            self.transport = future.result()
            self.world.transports.append(self.transport)
            self.world.note("started")


async def commanded(world: TlsWorld, **options: Any) -> TlsClient:
    """Return a client that has sent the command and received the go-ahead."""
    client = await world.connect(**options)
    await client.send(COMMAND)
    assert await client.receive(len(GO_AHEAD)) == GO_AHEAD
    return TlsClient(client)
