"""aiosmtpd's controllers on our loops, with a recording handler and a client.

Rules of this file: no test in it. The controllers are used unchanged, ``Controller(handler,
loop=...)``: they make a thread for the loop, and run, stop and close it themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import smtplib
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from support.foreign import LOOPS, OURS, census, foreign
from support.foreign_clients import Address, Certificate, Together, make_certificate
from support.kernel import open_descriptors
from support.waiting import until

controllers, smtp, marks = foreign("aiosmtpd.controller", "aiosmtpd.smtp")
marks += [pytest.mark.usefixtures("frozen_heap")]

WAYS = ("tcp", "tls", "starttls", "unix")
OURS_ON_ALL_WAYS = tuple(itertools.product(OURS, WAYS))
STARTTLS = tuple((name, "starttls") for name in LOOPS)
PAIRS = (*OURS_ON_ALL_WAYS, ("uvloop", "starttls"), ("asyncio", "tcp"))

MESSAGE = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nhello\r\n.dot\r\n"


class Handler:
    """The handler.

    Attributes:
        messages: the content of each message, and whether the session was encrypted.
        commands: the arguments of NOOP.
        go: lets RCPT to hold@... go on; set by tests, in the loop.
        together: a barrier for messages to all@...
    """

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bool]] = []
        self.commands: list[str] = []
        self.go = asyncio.Event()
        self.together = Together()

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith("hold@"):
            await self.go.wait()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if envelope.rcpt_tos[0].startswith("all@"):
            await self.together.wait()
        self.messages.append((envelope.original_content, session.ssl is not None))
        return "250 OK"

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: str) -> str:
        self.commands.append(argument)
        return "250 OK"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    """Accept anyone who knows the password."""
    return smtp.AuthResult(success=data.password == b"secret", handled=False)


class SmtplibClient(smtplib.SMTP):
    """smtplib's client over a socket that is already connected: TCP, TLS or Unix."""

    def __init__(self, address: Address) -> None:
        self.address = address
        super().__init__("localhost", timeout=30)

    def _get_socket(self, *arguments: Any) -> socket.socket:
        return self.address.connect()


class StartedController:
    """A started controller.

    Attributes:
        address: where it listens.
        handler: its handler.
        controller: aiosmtpd's controller.
        complaints: calls of the loop's exception handler.
    """

    def __init__(self, name: str, address: Address) -> None:
        self.native = name in OURS
        self.address = address
        self.handler = Handler()
        self.complaints: list[str] = []
        self.loop = LOOPS[name]()
        self.loop.set_exception_handler(self._complain)
        options: dict[str, Any] = {"loop": self.loop, "ssl_context": address.server_context}
        options["authenticator"] = authenticate
        if address.way == "starttls":
            options["tls_context"] = address.certificate.server_context()
        if address.way == "unix":
            make, place = controllers.UnixSocketController, (address.path,)
        else:
            # It reserves the port until the controller, also with SO_REUSEADDR, listens on it.
            with address.bind() as reserved:
                place = reserved.getsockname()
                self.controller = controllers.Controller(self.handler, *place, **options)
                self.controller.start()
            return
        self.controller = make(self.handler, *place, **options)
        self.controller.start()

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context['message']}: {context.get('exception')!r}")

    def census(self) -> dict[str, int]:
        async def counted() -> dict[str, int]:
            return census()

        counting: Future[dict[str, int]] = asyncio.run_coroutine_threadsafe(counted(), self.loop)
        return counting.result(30)

    def check_quiet(self) -> None:
        """Wait until no connection is left."""
        until(lambda: not any(map(self.census().get, ("open", "endpoints", "parked"))), "the end")

    def client(self) -> SmtplibClient:
        """Return a client that has sent EHLO, over TLS if the server supports it."""
        client = SmtplibClient(self.address)
        assert self.census().get("served", 0) == (1 if self.native else 0)
        if self.address.way == "starttls":
            assert client.starttls(context=self.address.certificate.client_context())[0] == 220
        assert client.ehlo("client.example.org")[0] == 250
        return client


@contextlib.contextmanager
def started(name: str, address: Address) -> Iterator[StartedController]:
    """Run a controller; check that it leaves nothing behind."""
    gc.collect()
    before = open_descriptors()
    serving = StartedController(name, address)
    try:
        yield serving
    finally:
        if not serving.loop.is_closed():
            serving.controller.stop()
    # Exceptions of tasks that were never retrieved are reported when these are collected.
    gc.collect()
    assert not serving.complaints
    leaked = {fd: link for fd, link in open_descriptors().items() if before.get(fd) != link}
    assert not leaked, f"descriptors left open: {leaked}"


def fixtures() -> tuple[Any, Any]:
    """Return the fixtures `certificate` and `serving` for a module of tests; see `on`."""

    @pytest.fixture(scope="module")
    def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
        return make_certificate(tmp_path_factory.mktemp("certificate"))

    @pytest.fixture
    def serving(
        request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate
    ) -> Iterator[StartedController]:
        name, way = request.param
        with started(name, Address(way, str(tmp_path / "socket"), certificate)) as server:
            yield server
            server.check_quiet()

    return certificate, serving


def on(pairs: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    """Return the decorator of tests of a controller on these loops and ways."""
    return pytest.mark.parametrize("serving", pairs, ids="-".join, indirect=True)
