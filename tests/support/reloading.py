"""A server whose configuration is a file that tests rewrite and reload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from fastlisten.config import load
from fastlisten.runtime.listener import Listener
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.server import Server
from support.server import connect, read_all

__all__ = ["Reloadable", "echo", "reloadable"]


def echo(id: str, *lines: str, bind: str = "127.0.0.1:0") -> str:
    """Return the table of a listener that sends back what it receives."""
    text = "\n".join(lines)
    return (
        f'[server.listener.{id}]\nprotocol = "echo"\nbind = "{bind}"\n'
        f'handler = "support.serving_handlers:Echo"\n{text}\n'
    )


class Reloadable:
    """A running server and its file.

    Attributes:
        server: the server.
        path: its configuration.
        id: of the listener that is meant if none is named.
    """

    def __init__(self, server: Server, path: Path, id: str = "it") -> None:
        self.server = server
        self.path = path
        self.id = id

    async def reload(self, text: str) -> ReloadReport:
        """Write the file and reload it."""
        self.path.write_text(text)
        return await self.server.reload()

    def listener(self, id: str = "") -> Listener:
        """Return a listener."""
        found = {one.name: one for one in self.server.listeners}
        return found[id or self.id]

    def address(self, id: str = "", index: int = 0) -> tuple[str, int]:
        """Return the address of a listener's socket."""
        host, port = self.listener(id).sockets[index].sock.getsockname()[:2]
        return host, port

    async def connect(self, id: str = "") -> socket.socket:
        """Return a new client of a listener."""
        return await connect(*self.address(id))

    async def answer(self, id: str = "", said: bytes = b"hello") -> bytes:
        """Return all that a listener answers to a new client that says one thing."""
        with await self.connect(id) as client:
            await asyncio.get_running_loop().sock_sendall(client, said)
            client.shutdown(socket.SHUT_WR)
            return await read_all(client)


@contextlib.asynccontextmanager
async def reloadable(directory: Path, text: str) -> AsyncIterator[Reloadable]:
    """Serve a configuration from a file in a directory, for the time of the block."""
    path = directory / "mail.toml"
    path.write_text(text)
    async with Server(load(path)) as server:
        yield Reloadable(server, path)
