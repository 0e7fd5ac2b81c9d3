"""A raw client socket, driven by the running loop.

Rules of this file: a client does nothing on its own; every wait is bounded by `PATIENCE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable
from typing import Any, TypeVar

from support.waiting import PATIENCE

__all__ = ["RESET", "RawClient", "describe", "patiently", "reset"]

_T = TypeVar("_T")

#: SO_LINGER with time 0: close(2) sends a reset.
RESET = struct.pack("ii", 1, 0)


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def describe(exc: BaseException | None) -> str:
    """Return class and arguments of an exception, equal for equal errors."""
    return "none" if exc is None else f"{type(exc).__name__}{exc.args}"


async def patiently(awaitable: Awaitable[_T]) -> _T:
    """Await something for at most `PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


class RawClient:
    """A non-blocking client socket.

    Attributes:
        sock: the connected socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    async def connect(
        cls, address: Any, *, receive_buffer: int = 0, send_buffer: int = 0, first: bytes = b""
    ) -> RawClient:
        """Connect.

        Args:
            address: a host and a port, or the path of a Unix socket.
            receive_buffer: size for SO_RCVBUF, 0 for the default.
            send_buffer: size for SO_SNDBUF, 0 for the default.
            first: data to send at once.
        """
        family = (
            socket.AF_UNIX
            if isinstance(address, str | bytes)
            else socket.AF_INET6
            if ":" in address[0]
            else socket.AF_INET
        )
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        sock.setblocking(False)
        try:
            await patiently(asyncio.get_running_loop().sock_connect(sock, address))
        except BaseException:
            sock.close()
            raise
        client = cls(sock)
        if first:
            await client.send(first)
        return client

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await patiently(asyncio.get_running_loop().sock_sendall(self.sock, data))

    async def read(self, size: int = 1 << 18) -> bytes:
        """Return the next input, b"" at its end."""
        return await patiently(asyncio.get_running_loop().sock_recv(self.sock, size))

    async def receive(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer if the stream ends before."""
        found = bytearray()
        while len(found) < size and (data := await self.read(min(size - len(found), 1 << 18))):
            found += data
        return bytes(found)

    async def everything(self) -> bytes:
        """Return all input up to its end; a reset is an error."""
        found = bytearray()
        while data := await self.read():
            found += data
        return bytes(found)

    async def rest(self) -> tuple[bytes, str]:
        """Read to the end; return the data, and "eof" or the error that ended it."""
        found = bytearray()
        try:
            while data := await self.read():
                found += data
        except OSError as exc:
            return bytes(found), describe(exc)
        return bytes(found), "eof"

    def at_hand(self) -> bytes | None:
        """Return what has arrived, without waiting; None for nothing."""
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    def ended(self) -> str:
        """Return "open", "eof", "data" or the error, without waiting."""
        try:
            return "data" if self.sock.recv(1, socket.MSG_PEEK) else "eof"
        except BlockingIOError:
            return "open"
        except OSError as exc:
            return describe(exc)

    def finish(self) -> None:
        """Shut down the sending side, unless the server has closed already."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        reset(self.sock)

    def close(self) -> None:
        """Close the socket, which sends a reset if there is unread input."""
        self.sock.close()
