"""aiosmtpd's controllers on our loops, answering smtplib, swaks and asyncio's own streams.

Rules of this file: the controllers run as they are, ``Controller(handler, loop=...)``: they make a
thread for the loop, and run, stop and close it themselves. aiosmtpd takes STARTTLS into its own
hands: it puts the standard library's private SSLProtocol over whatever transport it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from conftest import open_descriptors
from helpers_foreign import (
    CROWD,
    LOOPS,
    MUCH,
    OURS,
    Address,
    Certificate,
    Together,
    census,
    crowd,
    foreign,
    make_certificate,
    needs_program,
    pour,
    receive_all,
    until,
)

controllers, smtp, pytestmark = foreign("aiosmtpd.controller", "aiosmtpd.smtp")
pytestmark += [pytest.mark.external("openssl"), pytest.mark.usefixtures("frozen_heap")]

MESSAGE = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nhello\r\n.dot\r\n"


class Handler:
    """What aiosmtpd calls.

    Attributes:
        messages: content and whether it came encrypted.
        commands: arguments of NOOP as they came.
        go: lets a transaction with RCPT to hold@... go on; set by tests, in the loop.
        together: lets transactions with RCPT to all@... end.
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
    """Let in whoever knows the password."""
    return smtp.AuthResult(success=data.password == b"secret", handled=False)


class Client(smtplib.SMTP):
    """smtplib's client over a socket that is connected already, be it TCP, TLS or Unix."""

    def __init__(self, address: Address) -> None:
        self.address = address
        super().__init__("localhost", timeout=30)

    def _get_socket(self, *arguments: Any) -> socket.socket:
        return self.address.connect()


class Serving:
    """A started controller.

    Attributes:
        address: where it listens.
        handler: the controller's.
        controller: aiosmtpd's.
        complaints: what the loop's exception handler was told.
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
            # It keeps the port until the controller, too with SO_REUSEADDR, listens on it.
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

    def client(self) -> Client:
        """Return a client that has said hello, encrypted where the server can."""
        client = Client(self.address)
        assert self.census().get("served", 0) == (1 if self.native else 0)
        if self.address.way == "starttls":
            assert client.starttls(context=self.address.certificate.client_context())[0] == 220
        assert client.ehlo("client.example.org")[0] == 250
        return client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextlib.contextmanager
def started(name: str, address: Address) -> Iterator[Serving]:
    """Start a controller; nothing may be left when it has been stopped."""
    gc.collect()
    before = open_descriptors()
    serving = Serving(name, address)
    try:
        yield serving
    finally:
        if not serving.loop.is_closed():
            serving.controller.stop()
    # Tasks that failed and were asked by nobody say so when they are collected.
    gc.collect()
    assert not serving.complaints
    leaked = {fd: link for fd, link in open_descriptors().items() if before.get(fd) != link}
    assert not leaked, f"descriptors left open: {leaked}"


@pytest.fixture
def serving(
    request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate
) -> Iterator[Serving]:
    name, way = request.param
    with started(name, Address(way, str(tmp_path / "socket"), certificate)) as server:
        yield server
        server.check_quiet()


def on(pairs: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    """Return the decorator of tests that want a controller on these loops and ways."""
    return pytest.mark.parametrize("serving", pairs, ids="-".join, indirect=True)


WAYS = ("tcp", "tls", "starttls", "unix")
STARTTLS = tuple((name, "starttls") for name in LOOPS)
PAIRS = (*itertools.product(OURS, WAYS), ("uvloop", "starttls"), ("asyncio", "tcp"))


@on(PAIRS)
def test_messages_are_taken(serving: Serving) -> None:
    large = MESSAGE + (b"x" * 76 + b"\r\n") * 50_000  # 4 MB
    with serving.client() as client:
        for content in (MESSAGE, large):
            client.sendmail("a@example.org", ["b@example.org"], content)
    assert [content for content, _ in serving.handler.messages] == [MESSAGE, large]
    # With TLS from the first byte aiosmtpd does not say so in the session.
    starttls = serving.address.way == "starttls"
    assert [encrypted for _, encrypted in serving.handler.messages] == [starttls, starttls]


@on(PAIRS)
def test_two_hundred_clients_at_once(serving: Serving) -> None:
    address = serving.address
    context = address.certificate.client_context()

    async def visit(number: int) -> bytes:
        opened: Any
        if address.way == "unix":
            opened = asyncio.open_unix_connection(address.path)
        else:
            secure = context if address.way == "tls" else None
            opened = asyncio.open_connection("127.0.0.1", address.port, ssl=secure)
        # A Unix socket's backlog, 100 here, is no queue: it fails the client that comes next.
        async with gate:
            reader, writer = await opened
            assert (await reader.readline()).startswith(b"220 ")

        async def say(line: bytes) -> bytes:
            writer.write(line)
            while (answer := await reader.readuntil(b"\r\n"))[3:4] == b"-":
                pass
            return bytes(answer)

        if address.way == "starttls":
            await say(b"EHLO client.example.org\r\n")
            assert (await say(b"STARTTLS\r\n")).startswith(b"220")
            await writer.start_tls(context, server_hostname="localhost")
        await say(b"EHLO client.example.org\r\n")
        await say(b"MAIL FROM:<a@example.org>\r\n")
        await say(b"RCPT TO:<all@example.org>\r\n")
        await say(b"DATA\r\n")
        answer = await say(b"Subject: %d\r\n\r\nx\r\n.\r\n" % number)
        writer.close()
        await writer.wait_closed()
        return answer

    gate = asyncio.Semaphore(50)
    assert asyncio.run(crowd(visit)) == [b"250 OK\r\n"] * CROWD
    assert len({content for content, _ in serving.handler.messages}) == CROWD


@on(PAIRS)
def test_a_server_that_works_slowly_slows_the_client(serving: Serving) -> None:
    with serving.client() as client:
        assert client.mail("a@example.org")[0] == 250
        assert isinstance(client.sock, socket.socket)
        client.sock.sendall(b"RCPT TO:<hold@example.org>\r\n")
        lines = b"NOOP %s\r\n" % (b"x" * 500)
        sent = pour(client.sock, lines * (MUCH // len(lines)))
        assert 0 < sent < MUCH - len(lines)
        serving.loop.call_soon_threadsafe(serving.handler.go.set)
        assert receive_all(client.sock, 8) == b"250 OK\r\n"
        # The last line may be a part of one; the rest is dropped with the connection.
        answered = sent // len(lines)
        assert receive_all(client.sock, answered * 8) == b"250 OK\r\n" * answered
        client.close()


# -- STARTTLS


def dialogue(sock: socket.socket, text: bytes, end: bytes) -> None:
    """Send, and receive up to what ends with `end`."""
    sock.sendall(text)
    received = b""
    while not received.endswith(end):
        data = sock.recv(4096)
        assert data, received
        received += data


@contextlib.contextmanager
def asked_for_tls(serving: Serving, behind: bytes = b"") -> Iterator[socket.socket]:
    """Give a connection on which STARTTLS has been answered; `behind` came in its segment."""
    with socket.create_connection(("127.0.0.1", serving.address.port), 30) as sock:
        dialogue(sock, b"", b"\r\n")
        dialogue(sock, b"EHLO client.example.org\r\n", b"250 HELP\r\n")
        dialogue(sock, b"STARTTLS\r\n" + behind, b"TLS\r\n")
        yield sock


@on(STARTTLS)
def test_starttls_forgets_and_says_hello_again(serving: Serving) -> None:
    context = serving.address.certificate.client_context()
    with Client(serving.address) as client:
        assert client.ehlo("client.example.org")[0] == 250
        assert client.has_extn("starttls")
        assert client.starttls(context=context)[0] == 220
        # What was said before is forgotten, and STARTTLS is offered once only.
        assert client.docmd("MAIL FROM:<a@example.org>")[0] == 503
        assert client.ehlo("client.example.org")[0] == 250
        assert not client.has_extn("starttls")


@on(STARTTLS)
def test_auth_after_starttls(serving: Serving) -> None:
    with serving.client() as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "wrong")
        assert client.login("alice", "secret")[0] == 235
        assert not client.sendmail("a@example.org", ["b@example.org"], MESSAGE)
    assert serving.handler.messages == [(MESSAGE, True)]


@on([("fastlisten", "tls"), ("asyncio", "tls")])
def test_tls_from_the_first_byte_does_not_count_for_auth(serving: Serving) -> None:
    """Whatever the loop: aiosmtpd does not look. docs/asyncio.md says what to write."""
    with serving.client() as client:
        assert not client.has_extn("auth")


@on(STARTTLS)
def test_plaintext_behind_starttls_is_not_executed(serving: Serving) -> None:
    context = serving.address.certificate.client_context()
    # In the same segment: aiosmtpd empties its reader's buffer when TLS has begun.
    with (
        asked_for_tls(serving, b"NOOP injected\r\n") as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        dialogue(secure, b"EHLO client.example.org\r\n", b"250 HELP\r\n")
        dialogue(secure, b"NOOP encrypted\r\n", b"250 OK\r\n")
    # In a later one: it is taken for TLS, and is none.
    with asked_for_tls(serving) as sock:
        sock.sendall(b"NOOP injected\r\n")
        with contextlib.suppress(OSError):
            while sock.recv(4096):
                pass
    assert serving.handler.commands == ["encrypted"]


@on(STARTTLS)
@pytest.mark.parametrize("ending", ["closed", "half a hello", "garbage", "no close_notify"])
def test_ends_during_and_after_the_handshake(serving: Serving, ending: str) -> None:
    context = serving.address.certificate.client_context()
    with asked_for_tls(serving) as sock:
        if ending == "half a hello":
            outgoing = ssl.MemoryBIO()
            client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            sock.sendall(outgoing.read()[:100])
        elif ending == "garbage":
            sock.sendall(b"\x16\x03\x01" + bytes(100))
            with contextlib.suppress(OSError):
                while sock.recv(4096):
                    pass
        elif ending == "no close_notify":
            with context.wrap_socket(sock, server_hostname="localhost") as secure:
                dialogue(secure, b"NOOP before the end\r\n", b"250 OK\r\n")
    serving.check_quiet()


@on(STARTTLS)
@needs_program("swaks")
def test_swaks_takes_starttls(serving: Serving) -> None:
    command = ["swaks", "--server", "127.0.0.1", "--port", str(serving.address.port), "--tls"]
    command += ["--from", "a@example.org", "--to", "b@example.org", "--body", "from swaks"]
    command += ["--tls-ca-path", str(serving.address.certificate.certificate), "--tls-verify"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    ((content, encrypted),) = serving.handler.messages
    assert b"from swaks" in content
    assert encrypted


# -- other ends, other controllers


# On ours alone: stock loops complain, at close or later, of the TLS connections that they drop.
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("way", WAYS)
def test_stopping_with_open_connections(
    name: str, way: str, tmp_path: Path, certificate: Certificate
) -> None:
    address = Address(way, str(tmp_path / "socket"), certificate)
    heard: list[bytes] = []

    def listen() -> None:
        with address.connect() as sock, contextlib.suppress(OSError):
            while data := sock.recv(1000):
                heard.append(data)

    with started(name, address) as serving:
        listening = threading.Thread(target=listen)
        listening.start()
        until(lambda: heard, "the greeting")
        # aiosmtpd closes the loop, and with it what is open.
        serving.controller.stop()
        listening.join(30)
        assert not listening.is_alive()
    assert len(heard) == 1


@pytest.mark.parametrize("name", LOOPS)
def test_an_unthreaded_controller(name: str, certificate: Certificate) -> None:
    loop, handler = LOOPS[name](), Handler()
    address = Address("tcp", "", certificate)

    def converse() -> None:
        with Client(address) as client:
            client.sendmail("a@example.org", ["b@example.org"], MESSAGE)

    try:
        with address.bind() as reserved:
            place = reserved.getsockname()
            controller = controllers.UnthreadedController(handler, *place, loop=loop)
            controller.begin()
        loop.run_until_complete(loop.run_in_executor(None, converse))
        controller.end()

        async def counted() -> dict[str, int]:
            for _ in range(25):
                await asyncio.sleep(0)
            return census()

        assert not any(loop.run_until_complete(counted()).values())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert handler.messages == [(MESSAGE, False)]
