"""Clients of any protocol: addresses, TLS, many at once, slow readers.

Rules of this file: no test in it, and nothing about a particular server or loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from support.certificates import authority
from support.waiting import PATIENCE, until

#: The number of parallel clients that every server must serve.
CROWD = 200

#: How clients reach a server.
WAYS = ("tcp", "tls", "unix")

#: More bytes than the kernel and every buffer between a server and its client hold.
MUCH = 16 << 20

_T = TypeVar("_T")


# -- TLS


@dataclass(frozen=True)
class Certificate:
    """A certificate for localhost and 127.0.0.1, and its authority.

    Attributes:
        certificate: the file of both.
        key: the file of its private key.
    """

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a server's context with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that trusts only this certificate."""
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(folder: Path) -> Certificate:
    """Write a key and a certificate into a folder, the latter with the authority's appended."""
    pair = authority().sign("localhost", "127.0.0.1")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.certificate.write_bytes(pair.cert + authority().pem)
    made.key.write_bytes(pair.key)
    return made


# -- where a server listens


@dataclass
class Address:
    """Where a server listens, and how a client gets there.

    Attributes:
        way: one of `WAYS`.
        path: the path of the Unix socket.
        certificate: the certificate for TLS.
        port: the port; 0 until the server listens.
    """

    way: str
    path: str
    certificate: Certificate
    port: int = 0

    @property
    def server_context(self) -> ssl.SSLContext | None:
        """The server's `ssl` argument."""
        return self.certificate.server_context() if self.way == "tls" else None

    def url(self, scheme: str, path: str = "/") -> str:
        """Return a URL; an "s" is appended to the scheme for TLS."""
        host = "localhost" if self.way == "unix" else f"127.0.0.1:{self.port}"
        return f"{scheme}{'s' if self.way == 'tls' else ''}://{host}{path}"

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Return a connected blocking socket, after the TLS handshake."""
        family = socket.AF_UNIX if self.way == "unix" else socket.AF_INET
        sock = socket.socket(family)
        try:
            sock.settimeout(PATIENCE)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(self.path if self.way == "unix" else ("127.0.0.1", self.port))
            if self.way == "tls":
                context = self.certificate.client_context()
                return context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        return sock

    def bind(self) -> socket.socket:
        """Return a bound socket that does not listen yet, and set the port."""
        if self.way == "unix":
            Path(self.path).unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(self.path)
            return sock
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        return sock


# -- clients of all protocols


async def crowd(visit: Callable[[int], Awaitable[_T]], count: int = CROWD) -> list[_T]:
    """Run parallel clients; return their results."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:

        async def one(number: int) -> _T:
            return await visit(number)

        tasks = [group.create_task(one(number)) for number in range(count)]
    return [task.result() for task in tasks]


async def transports_closed() -> None:
    """Wait for the end of transports that a client library has closed.

    Under TLS they wait for the server's close_notify; asyncio.run() would leave them open.
    """
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while any(transport._sock is not None for transport in tuple(loop._transports.values())):
            await asyncio.sleep(0.002)


class Together:
    """A barrier for the server's tasks: proof that all clients were served at the same time."""

    def __init__(self, count: int = CROWD) -> None:
        self._missing = count
        self._count = count
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the others."""
        event = self._event
        self._missing -= 1
        if self._missing == 0:
            self._missing, self._event = self._count, asyncio.Event()
            event.set()
        await event.wait()


def stalled(progress: Callable[[], int]) -> int:
    """Wait until a growing number stops growing, and return it."""
    until(progress, "the first byte")
    last, since = 0, time.monotonic()
    while time.monotonic() - since < 0.1:
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.005)
    return last


def pour(sock: socket.socket, data: bytes) -> int:
    """Send until the other side stops reading; return how much was sent."""
    view = memoryview(data)
    sent = 0
    sock.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        while sent < len(view):
            # One TLS record at a time: a write that timed out must be repeated unchanged.
            sent += sock.send(view[sent : sent + 16384])
    sock.settimeout(PATIENCE)
    return sent


def receive_all(sock: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes, fewer at the end of the stream."""
    parts = bytearray()
    while len(parts) < size:
        data = sock.recv(min(size - len(parts), 1 << 18))
        if not data:
            break
        parts += data
    return bytes(parts)
