"""aiosmtpd's handlers under test: a controller, ours or theirs, and a client that speaks by lines.

Rules of this file: no test in it. What serves is closed at the end of a block, with its loop.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import socket
import ssl
import struct
import warnings
from collections.abc import Iterator
from typing import Any

from fastlisten.handlers import smtp
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING
from support.certificates import authority

PATIENCE = 20.0

ENVELOPE = ("EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")
MESSAGE = b"Subject: x\r\n\r\n.dot\r\n"


@functools.cache
def server_context() -> ssl.SSLContext:
    """Return a context that shows a certificate for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().sign("localhost", "127.0.0.1").load_into(context)
    return context


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


PLAIN = f"AUTH PLAIN {b64(chr(0).join(('', 'user', 'secret')).encode())}"
BAD_PLAIN = f"AUTH PLAIN {b64(chr(0).join(('', 'user', 'wrong')).encode())}"


class Talk:
    """A client.

    Attributes:
        greeting: what the server said first, without the code.
        tls: the context that `starttls` uses.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._file = sock.makefile("rb")
        self.greeting = self.reply()[1]

    def reply(self) -> tuple[int, list[str]]:
        """Return the code of the next reply and its lines; code 0 at the end."""
        texts: list[str] = []
        while line := self._file.readline().decode():
            assert line.endswith("\r\n"), line
            texts.append(line[4:-2])
            if line[3] != "-":
                return int(line[:3]), texts
        assert not texts, texts
        return 0, []

    def send(self, *lines: str | bytes) -> None:
        """Send lines at once."""
        octets = [line.encode() if isinstance(line, str) else line for line in lines]
        self.sock.sendall(b"".join(line + b"\r\n" for line in octets))

    def say(self, *lines: str | bytes) -> list[int]:
        """Send lines one by one; return the codes of the replies."""
        codes = []
        for line in lines:
            self.send(line)
            codes.append(self.reply()[0])
        return codes

    def ask(self, line: str | bytes) -> tuple[int, list[str]]:
        """Send a line; return the reply."""
        self.send(line)
        return self.reply()

    def data(self, message: bytes = MESSAGE) -> tuple[int, list[str]]:
        """Send a message after DATA; return the last reply."""
        code, texts = self.ask("DATA")
        if code != 354:
            return code, texts
        stuffed = message.replace(b"\r\n.", b"\r\n..")
        return self.ask(stuffed + b".")

    def starttls(self) -> None:
        """Go over to TLS; the server must have agreed."""
        self._file.close()
        context = authority().client_context()
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._file = self.sock.makefile("rb")

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()


@contextlib.contextmanager
def talk(port: int, tls: bool = False) -> Iterator[Talk]:
    """Connect to a port of loopback and be greeted."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if tls:
        sock = authority().client_context().wrap_socket(sock, server_hostname="localhost")
    client = Talk(sock)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def controlled(handler: Any, **parameters: Any) -> Iterator[smtp.Controller]:
    """Serve a handler by our controller, in a thread."""
    with started(smtp.Controller(handler, "127.0.0.1", 0, **parameters)) as controller:
        yield controller


@contextlib.contextmanager
def started(controller: Any) -> Iterator[Any]:
    """Start a controller, and stop it."""
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


@contextlib.contextmanager
def theirs(handler: Any, **parameters: Any) -> Iterator[Any]:
    """Serve a handler by aiosmtpd's controller, on asyncio's loop."""
    from aiosmtpd.controller import Controller

    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            controller = Controller(
                handler, "127.0.0.1", port, loop=asyncio.SelectorEventLoop(), **parameters
            )
            controller.start()
    try:
        yield controller
    finally:
        controller.stop()


class Recorder:
    """A handler with no hook but DATA: it keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        self.messages.append((envelope, session))
        return MISSING

    def only(self) -> Any:
        """Return the only message's envelope.

        No property: aiosmtpd asks for every attribute of its handlers.
        """
        ((envelope, _),) = self.messages
        return envelope
