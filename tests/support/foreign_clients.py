"""How clients of every protocol get to a server, and how they come in crowds or read slowly.

Rules of this file: no test in it, and nothing that knows a particular server or loop.
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

#: So many clients at the same time have to be served by every server.
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
        certificate: file of both.
        key: file of its private key.
    """

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a context for a server that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a context for a client that trusts the certificate and nothing else."""
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(folder: Path) -> Certificate:
    """Make a key and a certificate in a folder, the authority's beside it in the same file."""
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
        path: of the Unix socket.
        certificate: for TLS.
        port: 0 until the server has said which.
    """

    way: str
    path: str
    certificate: Certificate
    port: int = 0

    @property
    def server_context(self) -> ssl.SSLContext | None:
        """What the server is to be given as `ssl`."""
        return self.certificate.server_context() if self.way == "tls" else None

    def url(self, scheme: str, path: str = "/") -> str:
        """Return a URL; `scheme` is the one without TLS, which appends an "s"."""
        host = "localhost" if self.way == "unix" else f"127.0.0.1:{self.port}"
        return f"{scheme}{'s' if self.way == 'tls' else ''}://{host}{path}"

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Return a connected blocking socket, TLS already done."""
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
        """Return a bound socket that does not listen yet, and note the port."""
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
    """Let so many clients come at the same time; return what each found."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:

        async def one(number: int) -> _T:
            return await visit(number)

        tasks = [group.create_task(one(number)) for number in range(count)]
    return [task.result() for task in tasks]


async def transports_closed() -> None:
    """Wait for the end of transports that a client's library has closed and no longer minds.

    Under TLS they wait for the server's farewell; asyncio.run() would leave them open.
    """
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while any(transport._sock is not None for transport in tuple(loop._transports.values())):
            await asyncio.sleep(0.002)


class Together:
    """Lets tasks of a server go on once so many of them have come: proof that all were served."""

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
    """Return a number that has stopped growing, after it has begun to."""
    until(progress, "the first byte")
    last, since = 0, time.monotonic()
    while time.monotonic() - since < 0.1:
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.005)
    return last


def pour(sock: socket.socket, data: bytes) -> int:
    """Send until the other side takes no more for a while; return how much went."""
    view = memoryview(data)
    sent = 0
    sock.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        while sent < len(view):
            # A TLS record at a time: what has timed out is repeated as it was.
            sent += sock.send(view[sent : sent + 16384])
    sock.settimeout(PATIENCE)
    return sent


def receive_all(sock: socket.socket, size: int) -> bytes:
    """Receive exactly so many bytes, fewer if the stream ends before."""
    parts = bytearray()
    while len(parts) < size:
        data = sock.recv(min(size - len(parts), 1 << 18))
        if not data:
            break
        parts += data
    return bytes(parts)
