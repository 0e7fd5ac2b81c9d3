"""The smtp handler served in a thread, and dialogues of clients.

It is served on the loop's own transports or on the native ones: what works on the former must work
on the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import uvloop

from fastlisten import testing
from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp import LmtpHandler, SmtpHandler
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.mail_session import MailSession
from support.accounts import write_accounts

HOSTNAME = "mx.example.org"

Tls = Literal["implicit", "starttls"] | None

ACCOUNTS = """
[account."alice@example.org"]
aliases = ["al@example.org"]

[account."bob@example.org"]
"""

HELLO = b"EHLO client.example.com\r\n"
MAIL = b"MAIL FROM:<sender@example.com>\r\n"
RCPT = b"RCPT TO:<alice@example.org>\r\n"
ENVELOPE = HELLO + MAIL + RCPT

MESSAGE = b"Subject: x\r\n\r\n.dot\r\ntext \x00\xff\r\n"
DIALOGUE = ENVELOPE + b"DATA\r\n" + MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\nQUIT\r\n"
DONE = [250, 250, 250, 354, 250, 221]

#: Loops, each with its own transports and with the native ones.
SERVERS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], bool]] = {
    "asyncio": (asyncio.new_event_loop, False),
    "uvloop": (uvloop.new_event_loop, False),
    "native-asyncio": (asyncio.new_event_loop, True),
    "native-uvloop": (uvloop.new_event_loop, True),
}


def codes(replies: bytes) -> list[int]:
    """Return the code of every reply, continuation lines left out."""
    assert replies == b"" or replies.endswith(b"\r\n")
    return [int(line[:3]) for line in replies.split(b"\r\n") if line and line[3:4] == b" "]


class Served:
    """A handler that is being served.

    Attributes:
        port: the port on 127.0.0.1.
        handler: the handler.
        directory: its data directory.
        protocols: the protocol objects of open connections.
        faults: calls of the loop's exception handler.
        client_context: the context for clients, None without TLS.
    """

    def __init__(self, handler: WatchedHandler, directory: Path) -> None:
        self.port = 0
        self.handler = handler
        self.directory = directory
        self.protocols = handler.open
        self.faults: list[dict[str, Any]] = []
        self.client_context: ssl.SSLContext | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def connect(self) -> socket.socket:
        """Connect and read the greeting."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        if self.handler.settings.tls_implicit:
            client = self.encrypt(client)
        greeting = self.handler.greeting
        received = b""
        while len(received) < len(greeting):
            received += client.recv(len(greeting) - len(received))
        assert received == greeting
        return client

    def encrypt(self, client: socket.socket) -> ssl.SSLSocket:
        """Perform the handshake. An end without close_notify is an error on that socket."""
        assert self.client_context is not None
        return self.client_context.wrap_socket(
            client, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        )

    def secured(self) -> ssl.SSLSocket:
        """Connect and begin TLS with STARTTLS."""
        client = self.connect()
        client.sendall(HELLO)
        assert b"250-STARTTLS\r\n" in read_until(client, b"250 HELP\r\n")
        client.sendall(b"STARTTLS\r\n")
        assert read_until(client, b"\r\n").startswith(b"220 ")
        return self.encrypt(client)

    def protocol(self) -> Any:
        """Return the only connection's protocol object, once it has been made."""
        while not self.protocols:
            time.sleep(0.001)
        (protocol,) = self.protocols
        return protocol

    def say(self, *chunks: bytes) -> bytes:
        """Send everything, shut down the sending half, and return all replies."""
        with self.connect() as client:
            for chunk in chunks:
                client.sendall(chunk)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the server's loop and return its result."""
        assert self.loop is not None

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def delivered(self, account: str = "alice@example.org") -> list[bytes]:
        """Return an account's messages in the order of their arrival."""
        new = self.directory / "mail" / account / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"), key=arrival)]

    def left_over(self) -> list[Path]:
        """Return the files in tmp/ directories."""
        return list((self.directory / "mail").glob("*/tmp/*"))


def arrival(path: Path) -> tuple[int, int]:
    """Return the sort key of a maildir name: seconds, then the process's counter."""
    seconds, unique, *_ = path.name.split(".")
    return int(seconds), int(unique.partition("Q")[2].partition("R")[0])


def body_of(stored: bytes) -> bytes:
    """Return a stored message without the two header fields that delivery added."""
    assert stored.startswith(b"Return-Path: <")
    end = stored.index(b"\r\n", stored.index(b";\r\n\t") + 4) + 2
    assert stored[:end].count(b"Received:") == 1
    return stored[end:]


def read_all(client: socket.socket) -> bytes:
    """Read to the end."""
    received = bytearray()
    while data := client.recv(65536):
        received += data
    return bytes(received)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Read up to and including some octets."""
    received = b""
    while not received.endswith(end):
        data = client.recv(65536)
        assert data, received
        received += data
    return received


def exchange(client: ssl.SSLSocket, data: bytes) -> bytes:
    """Send everything and read until the end, at the same time.

    Two threads must not share a TLS session, so one does both in turns.
    """
    client.setblocking(False)
    unsent, received = memoryview(data), bytearray()
    while True:
        select.select([client], [client] if unsent else [], [], 20)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while unsent:
                unsent = unsent[client.send(unsent[:65536]) :]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while piece := client.recv(65536):
                received += piece
            return bytes(received)


class Watched(EngineProtocol):
    """A connection that is in the handler's list while it is open."""

    __slots__ = ("open",)

    def __init__(self, handler: WatchedHandler, info: ConnectionInfo) -> None:
        super().__init__(MailSession(handler, info))
        self.open = handler.open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.open.append(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.remove(self)
        super().connection_lost(exc)


class WatchedHandler(SmtpHandler):
    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.open: list[Any] = []

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        if self._delay is not None:
            return super().connection(info)
        return Watched(self, info)


class WatchedLmtpHandler(LmtpHandler, WatchedHandler):
    pass


class Greeter(asyncio.Protocol):
    """Does what the native core does before it creates the protocol object."""

    def __init__(self, handler: SmtpHandler) -> None:
        self.handler = handler

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        protocol: Any = self.handler.connection(ConnectionInfo("smtp", peer[0], peer[1]))
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.write(self.handler.greeting)


@contextlib.asynccontextmanager
async def on_the_loop(handler: WatchedHandler, served: Served) -> AsyncIterator[None]:
    """Serve on the running loop's own transports."""
    await handler.start()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Greeter(handler), "127.0.0.1", 0)
    try:
        served.port = server.sockets[0].getsockname()[1]
        yield
    finally:
        server.close()
        for protocol in handler.open:
            protocol._transport.abort()
        while handler.open:
            await asyncio.sleep(0.001)
        await server.wait_closed()
        await handler.stop()


@contextlib.asynccontextmanager
async def on_the_core(handler: WatchedHandler, served: Served, tls: Tls) -> AsyncIterator[None]:
    """Serve on the native transports."""
    async with testing.serve(handler, drain_timeout=0.01, tls=tls) as at:
        served.port = at.port
        served.client_context = at.client_context
        yield


@contextlib.contextmanager
def serve(
    directory: Path,
    accounts: str | None = ACCOUNTS,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    native: bool = True,
    tls: Tls = None,
    lmtp: bool = False,
    delimiter: str = "",
    **options: Any,
) -> Iterator[Served]:
    """Serve the smtp handler in a thread.

    Args:
        directory: its data directory.
        accounts: the content of the accounts file, None for no file.
        loop_factory: creates the loop.
        native: use the native transports instead of the loop's own.
        tls: as in `testing.serve`; on native transports only.
        lmtp: serve the lmtp handler instead.
        delimiter: `server.recipient-delimiter`.
        options: the handler's options, with underscores for hyphens.
    """
    assert native or tls is None
    if accounts is not None:
        write_accounts(directory / "accounts.toml", accounts)
    kind = WatchedLmtpHandler if lmtp else WatchedHandler
    handler = kind(
        HandlerSettings(
            "smtp",
            "lmtp" if lmtp else "smtp",
            HOSTNAME,
            data_directory=str(directory),
            options={key.replace("_", "-"): value for key, value in options.items()},
            extra={"recipient-delimiter": delimiter},
        )
    )
    served = Served(handler, directory)
    ready, failures = threading.Event(), list[BaseException]()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        served.loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: served.faults.append(context))
        finished = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(finished.set))
        server = on_the_core(handler, served, tls) if native else on_the_loop(handler, served)
        async with server:
            ready.set()
            await finished.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        if not failures:
            yield served
    finally:
        for function in stop:
            function()
        thread.join(30)
    assert not failures, failures
    assert not thread.is_alive()
    assert served.faults == []


def cut(data: bytes, size: int) -> Iterable[bytes]:
    """Split octets into pieces of one size."""
    return (data[start : start + size] for start in range(0, len(data), size))
