"""A server that was stopped (SIGSTOP and SIGCONT) for longer than its timeouts: what clients have
sent meanwhile is read before any of them is closed.

Rules of this file: one stop for all states of a connection; it lasts until every deadline has
passed by the clock. The server runs as users run it. What a client sends during the stop is in the
server's kernel before the server goes on: on loopback a send is a delivery.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.program import Program, program
from support.tls_listener import client_hello
from support.tls_probes import context
from support.waiting import PATIENCE, until

#: Every timeout of the server, seconds: for a few clients, and for a crowd, whose connecting takes
#: some time on a busy machine.
TIME, CROWD_TIME = 2.0, 6.0
#: How much longer than the timeouts it is stopped: than what passes for a busy loop.
LONGER = 1.5
#: More than the engine serves in one turn, and more than it ends in one sweep.
CROWD = 300

GREETING = b"220 mx.example.org ESMTP\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: mx.example.org\r\nConnection: close\r\n"


def configuration(time: float) -> str:
    text = table(Path(), "mx").replace("file://", "file://../")
    times = f'timeout.first-byte = "{time:g}s"\ntimeout.idle = "{time:g}s"\n'
    listeners = {
        "smtp": "",
        "delayed": f'smtp.greeting-delay = "{time:g}s"\n',
        "tls": f'tls.implicit = true\ntls.timeout = "{time:g}s"\n',
        "http": f'app = "support.http_application:app"\nhttp.header-timeout = "{time:g}s"\n',
    }
    for name, more in listeners.items():
        protocol = "http" if name == "http" else "smtp"
        text += f'[server.listener.{name}]\nprotocol = "{protocol}"\nbind = "127.0.0.1:0"\n'
        text += f"{times}{more}"
    return text


@contextlib.contextmanager
def stopped(served: Program, timeout: float = TIME) -> Iterator[None]:
    """Stop the server while the block runs, and for longer than its timeouts."""
    served.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{served.pid}/stat")
    until(lambda: stat.read_text().rpartition(") ")[2][0] == "T", "the stop")
    began = time.monotonic()
    try:
        yield
        while (left := began + timeout + LONGER - time.monotonic()) > 0:
            time.sleep(left)
    finally:
        served.signal(signal.SIGCONT)


def rest(client: socket.socket) -> bytes:
    """Return everything that a client receives up to the end."""
    found = b""
    while data := client.recv(65536):
        found += data
    return found


def line(client: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n"):
        data = client.recv(1)
        assert data, found
        found += data
    return found


def say(client: socket.socket, words: bytes) -> bytes:
    """Send a line and return the last line of the reply."""
    client.sendall(words + b"\r\n")
    while (answer := line(client))[3:4] == b"-":
        pass
    return answer


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    timeout = getattr(request, "param", TIME)
    write(tmp_path, authority().sign("mx.example.org", "127.0.0.1"), "mx")
    (tmp_path / "run").mkdir()
    with program(tmp_path / "run", configuration(timeout), listeners=4) as started:
        yield started


@pytest.mark.parametrize("served", [CROWD_TIME], indirect=True)
def test_data_sent_while_stopped_is_read(served: Program) -> None:
    with contextlib.ExitStack() as stack:

        def connect(listener: str, greeted: bool = False) -> socket.socket:
            address = ("127.0.0.1", served.port(listener))
            client = stack.enter_context(socket.create_connection(address, PATIENCE))
            if greeted:
                assert line(client) == GREETING
            return client

        def shake(client: socket.socket) -> ssl.SSLSocket:
            return stack.enter_context(
                context().wrap_socket(client, server_hostname="mx.example.org")
            )

        lazy = [connect("smtp", True) for _ in range(CROWD)]
        mute = [connect("smtp", True) for _ in range(CROWD)]
        known = [connect("smtp", True) for _ in range(20)]
        for client in known:
            assert say(client, b"EHLO c.example.com").startswith(b"250 ")
        writing = connect("smtp", True)
        for words, code in (
            (b"EHLO c.example.com", b"250"),
            (b"MAIL FROM:<s@example.com>", b"250"),
            (b"RCPT TO:<alice@example.org>", b"250"),
            (b"DATA", b"354"),
        ):
            assert say(writing, words).startswith(code)
        half = connect("smtp", True)
        half.sendall(b"NO")
        early = connect("delayed")
        unasked = [connect("tls") for _ in range(20)]
        begun = connect("tls")
        hello = client_hello()
        begun.sendall(hello[:100])
        secured = shake(connect("tls"))
        assert line(secured) == GREETING
        heads = [connect("http") for _ in range(20)]
        for client in heads:
            client.sendall(HEAD[:10])
        silent_head = connect("http")
        silent_head.sendall(HEAD[:10])
        # The server has had time to read all of it before it is stopped.
        assert say(connect("smtp", True), b"NOOP").startswith(b"250 ")

        with stopped(served, CROWD_TIME):
            for client in (*lazy, *known):
                client.sendall(b"NOOP\r\n")
            writing.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
            half.sendall(b"OP\r\n")
            early.sendall(b"EHLO c.example.com\r\n")
            begun.sendall(hello[100:])
            for client in unasked:
                client.sendall(hello)
            secured.sendall(b"NOOP\r\n")
            for client in heads:
                client.sendall(HEAD[10:] + b"\r\n")

        for client in (*lazy, *known, half):
            assert line(client).startswith(b"250 ")
        assert line(writing).startswith(b"250 2.0.0 Ok")
        assert rest(early).startswith(b"554 5.5.0 ")
        for client in (*unasked, begun):
            # The server's half of the handshake.
            assert client.recv(1) == b"\x16"
        assert line(secured).startswith(b"250 ")
        for client in heads:
            assert rest(client).startswith(b"HTTP/1.1 200 ")
        # Clients that sent nothing have had their time.
        for client in mute:
            assert rest(client) == b"421 4.4.2 mx.example.org Timeout; closing connection\r\n"
        assert rest(silent_head).startswith(b"HTTP/1.1 408 ")
    assert len(served.messages()) == 1
    assert served.stop() == 0


def test_handshakes_can_be_completed_afterwards(served: Program) -> None:
    """A client needs the server's answer first, and its own time passed while it waited."""
    with contextlib.ExitStack() as stack:
        clients, hellos = [], []
        for _ in range(20):
            address = ("127.0.0.1", served.port("tls"))
            clients.append(stack.enter_context(socket.create_connection(address, PATIENCE)))
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            hellos.append(
                (
                    context().wrap_bio(incoming, outgoing, server_hostname="mx.example.org"),
                    incoming,
                    outgoing,
                )
            )
        with stopped(served):
            for client, (tls, _, outgoing) in zip(clients, hellos, strict=True):
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                client.sendall(outgoing.read())
        for client, (tls, incoming, outgoing) in zip(clients, hellos, strict=True):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    data = client.recv(65536)
                    assert data, "the server ended the handshake"
                    incoming.write(data)
            client.sendall(outgoing.read())
            greeting = b""
            while greeting != GREETING:
                try:
                    greeting += tls.read(65536)
                except ssl.SSLWantReadError:
                    data = client.recv(65536)
                    assert data, greeting
                    incoming.write(data)


def test_abandoned_handshake_is_ended(served: Program) -> None:
    """The extra time that it gets is bounded, too."""
    with socket.create_connection(("127.0.0.1", served.port("tls")), PATIENCE) as client:
        with stopped(served):
            client.sendall(client_hello()[:100])
        with contextlib.suppress(ConnectionResetError):
            assert rest(client) == b""
