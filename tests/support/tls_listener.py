"""A TLS listener of the native core, and clients that stop somewhere in the handshake.

Rules of this file: as in support.listener, whose `Listener` this one extends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastlisten._arena import Arena, Places
from fastlisten._tls import TlsAcceptor, TlsConnection, TlsSettings
from fastlisten.loop.engines import engine_for
from support.listener import Echo, Listener, bound_socket
from support.raw_client import RawClient
from support.tls_contexts import HOST, client_context, server_context
from support.waiting import eventually

#: States of slots that hold a connection.
BUSY = ("accepted", "lazy", "served", "lingering", "endpoints", "open")


class TlsListener(Listener):
    """A listening socket served over TLS by the core.

    Attributes:
        settings: the TLS settings.
        acceptor: the native acceptor.
    """

    acceptor: TlsAcceptor

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        settings: TlsSettings,
        *,
        limit: int = 0,
        places: Places | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.places = places
        if limit:
            arena = Arena(1)
            self.places = arena.places(0, arena.join())
            self.places.limit = limit
        self.protocols: list[Any] = []
        self.sock = bound_socket()
        self.address = self.sock.getsockname()
        self.engine = engine_for(asyncio.get_running_loop())
        self.retired = asyncio.Event()
        self.factory = factory
        self.acceptor = TlsAcceptor(
            self.engine,
            self.sock,
            self._make,
            tls=settings,
            server=self,
            places=self.places,
            **options,
        )

    async def empty(self) -> None:
        """Wait until no connection is left in any state."""
        await eventually(
            lambda: not any(self.engine.census()[name] for name in BUSY),
            f"an empty table: {self.engine.census()}",
        )
        assert self.acceptor.connections == self.acceptor.held == 0
        assert self.settings.in_progress == 0

    def count(self, what: str) -> int:
        """Return one of the acceptor's statistics."""
        return self.acceptor.statistics()[what]

    def transports(self) -> int:
        """Return how many transports the engine holds."""
        return sum(isinstance(end, TlsConnection) for end in self.acceptor.endpoints())


@contextlib.asynccontextmanager
async def tls_listening(
    factory: Callable[[], asyncio.BaseProtocol] = Echo,
    context: ssl.SSLContext | None = None,
    *,
    handshake_timeout: float = 60.0,
    shutdown_timeout: float = 30.0,
    handshakes: int = 1024,
    **options: Any,
) -> AsyncIterator[TlsListener]:
    """Serve for the length of a block; options of `TlsSettings`, `TlsListener`, `TlsAcceptor`."""
    settings = TlsSettings(
        context or server_context(),
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
        handshakes=handshakes,
    )
    listener = TlsListener(factory, settings, **options)
    try:
        listener.acceptor.resume()
        yield listener
    finally:
        await listener.close()


def client_hello(context: ssl.SSLContext | None = None) -> bytes:
    """Return the first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = (context or client_context()).wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def talk(address: Any, context: ssl.SSLContext | None = None, word: bytes = b"hi") -> None:
    """Run an asyncio client: handshake, echo of a word, close."""
    reader, writer = await asyncio.open_connection(
        *address[:2], ssl=context or client_context(), server_hostname=HOST
    )
    try:
        writer.write(word)
        assert await reader.readexactly(len(word)) == word
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def everything(client: RawClient) -> bytes:
    """Read to the end, which may be a reset."""
    found = b""
    try:
        while data := await client.read():
            found += data
    except ConnectionResetError:
        pass
    return found
