"""A configuration served on the running loop of the test's process, and raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from fastlisten.config import loads
from fastlisten.runtime.server import Server
from support.waiting import PATIENCE

__all__ = ["connect", "read_all", "read_some", "served"]


@contextlib.asynccontextmanager
async def served(text: str) -> AsyncIterator[Server]:
    """Serve a configuration on the running loop."""
    async with Server(loads(text)) as server:
        yield server


async def connect(host: str, port: int) -> socket.socket:
    """Return a connected, non-blocking socket."""
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    client.setblocking(False)
    try:
        await asyncio.wait_for(loop.sock_connect(client, (host, port)), PATIENCE)
    except BaseException:
        client.close()
        raise
    return client


async def read_all(client: socket.socket) -> bytes:
    """Read to the end."""
    loop = asyncio.get_running_loop()
    received = b""
    while data := await asyncio.wait_for(loop.sock_recv(client, 65536), PATIENCE):
        received += data
    return received


async def read_some(client: socket.socket, size: int) -> bytes:
    """Return `size` octets, fewer at the end."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        data = await asyncio.wait_for(loop.sock_recv(client, size - len(received)), PATIENCE)
        if not data:
            break
        received += data
    return received
