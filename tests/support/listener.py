"""A listener of the native core, with all its settings, and clients of it in the same process.

Rules of this file: nothing here relies on the core's own counters; clients are plain sockets. Every
wait is bounded by `PATIENCE`, which is reached only in case of a bug.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastlisten._arena import Arena, Places
from fastlisten._connection import ConnectionAcceptor
from fastlisten._core import Acceptor, Engine
from fastlisten.loop.engines import engine_for
from support.raw_client import RawClient
from support.waiting import PATIENCE


def bound_socket(
    family: int = socket.AF_INET, address: Any = None, backlog: int = 4096
) -> socket.socket:
    """Return a listening socket on loopback; `address` for a Unix socket's path."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    if address is None:
        address = ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
    sock.bind(address)
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


class Echo(asyncio.Protocol):
    """Sends back what it receives; its transport is accessible to tests."""

    transport: Any = None
    busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Witness(Echo):
    """Records calls of connection_lost."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ends.append(exc)


class Listener:
    """A listening socket served by the core, with the parts that `create_server` hides.

    Attributes:
        engine: the engine of the running loop.
        acceptor: the native acceptor.
        address: the address for clients.
        places: its connection limit, None without one.
        protocols: all its protocol objects, in order.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        *,
        limit: int = 0,
        places: Places | None = None,
        **settings: Any,
    ) -> None:
        if limit:
            arena = Arena(1)
            places = arena.places(0, arena.join())
            places.limit = limit
        self.protocols: list[Any] = []
        self.places = places
        self.sock = sock
        self.address = sock.getsockname()
        self.engine: Engine = engine_for(asyncio.get_running_loop())
        self.retired = asyncio.Event()
        self.factory = factory
        self.acceptor = ConnectionAcceptor(
            self.engine, sock, self._make, server=self, places=places, **settings
        )

    def _make(self) -> asyncio.BaseProtocol:
        protocol = self.factory()
        self.protocols.append(protocol)
        return protocol

    def _retired(self, acceptor: Acceptor) -> None:
        self.retired.set()

    async def connect(self, **settings: Any) -> RawClient:
        """Return a new client of this listener."""
        return await RawClient.connect(self.address, **settings)

    async def close(self) -> None:
        """Abort remaining connections; close the engine if it serves nothing else."""
        self.acceptor.close()
        self.acceptor.abort()
        async with asyncio.timeout(PATIENCE):
            await self.retired.wait()
        self.sock.close()
        if self.engine.idle:
            self.engine.close()


@contextlib.asynccontextmanager
async def listening(
    factory: Callable[[], asyncio.BaseProtocol] = Echo,
    sock: socket.socket | None = None,
    *,
    start: bool = True,
    **settings: Any,
) -> AsyncIterator[Listener]:
    """Serve a socket (default: a new one on 127.0.0.1) for the time of the block.

    Args:
        factory: creates the protocols.
        sock: a listening socket.
        start: accept at once, otherwise after ``acceptor.resume()``.
        settings: arguments of `Listener` and of the core's Acceptor.
    """
    listener = Listener(factory, sock if sock is not None else bound_socket(), **settings)
    try:
        if start:
            listener.acceptor.resume()
        yield listener
    finally:
        await listener.close()


def small_sender() -> socket.socket:
    """Return a listening socket whose connections have the smallest send buffer."""
    sock = bound_socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    return sock


@contextlib.asynccontextmanager
async def crowd_of(
    listener: Listener, size: int, **settings: Any
) -> AsyncIterator[list[RawClient]]:
    """Connect clients one after the other; close them at the end of the block."""
    clients: list[RawClient] = []
    with contextlib.ExitStack() as stack:
        for _ in range(size):
            client = await listener.connect(**settings)
            stack.callback(client.close)
            clients.append(client)
        yield clients
