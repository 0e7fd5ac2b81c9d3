"""aiosmtpd and STARTTLS on our loops, answering smtplib and swaks.

Rules of this file: aiosmtpd does not use loop.start_tls(). It puts the standard library's private
SSLProtocol over its transport; the requirements are the same on every loop.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest
from support.foreign_smtp import (
    MESSAGE,
    STARTTLS,
    SmtplibClient,
    StartedController,
    fixtures,
    marks,
    on,
)
from support.marks import external

pytestmark = marks
certificate, serving = fixtures()


def dialogue(sock: socket.socket, text: bytes, end: bytes) -> None:
    """Send, and receive up to `end`."""
    sock.sendall(text)
    received = b""
    while not received.endswith(end):
        data = sock.recv(4096)
        assert data, received
        received += data


@contextlib.contextmanager
def starttls_sent(serving: StartedController, surplus: bytes = b"") -> Iterator[socket.socket]:
    """Yield a connection after the reply to STARTTLS; `surplus` is sent in its segment."""
    with socket.create_connection(("127.0.0.1", serving.address.port), 30) as sock:
        dialogue(sock, b"", b"\r\n")
        dialogue(sock, b"EHLO client.example.org\r\n", b"250 HELP\r\n")
        dialogue(sock, b"STARTTLS\r\n" + surplus, b"TLS\r\n")
        yield sock


@on(STARTTLS)
def test_starttls_resets_the_session(serving: StartedController) -> None:
    context = serving.address.certificate.client_context()
    with SmtplibClient(serving.address) as client:
        assert client.ehlo("client.example.org")[0] == 250
        assert client.has_extn("starttls")
        assert client.starttls(context=context)[0] == 220
        # The session state is discarded, and STARTTLS is not offered again.
        assert client.docmd("MAIL FROM:<a@example.org>")[0] == 503
        assert client.ehlo("client.example.org")[0] == 250
        assert not client.has_extn("starttls")


@on(STARTTLS)
def test_auth_after_starttls(serving: StartedController) -> None:
    with serving.client() as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "wrong")
        assert client.login("alice", "secret")[0] == 235
        assert not client.sendmail("a@example.org", ["b@example.org"], MESSAGE)
    assert serving.handler.messages == [(MESSAGE, True)]


@on([("fastlisten", "tls"), ("asyncio", "tls")])
def test_implicit_tls_does_not_enable_auth(serving: StartedController) -> None:
    """On any loop, because aiosmtpd does not check; docs/asyncio.md has a workaround."""
    with serving.client() as client:
        assert not client.has_extn("auth")


@on(STARTTLS)
def test_plaintext_after_starttls_is_not_executed(serving: StartedController) -> None:
    context = serving.address.certificate.client_context()
    # In the same segment: aiosmtpd clears its reader's buffer when TLS begins.
    with (
        starttls_sent(serving, b"NOOP injected\r\n") as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        dialogue(secure, b"EHLO client.example.org\r\n", b"250 HELP\r\n")
        dialogue(secure, b"NOOP encrypted\r\n", b"250 OK\r\n")
    # In a later one: it is read as TLS, which fails.
    with starttls_sent(serving) as sock:
        sock.sendall(b"NOOP injected\r\n")
        with contextlib.suppress(OSError):
            while sock.recv(4096):
                pass
    assert serving.handler.commands == ["encrypted"]


@on(STARTTLS)
@pytest.mark.parametrize("ending", ["closed", "half a hello", "garbage", "no close_notify"])
def test_disconnect_during_and_after_the_handshake(serving: StartedController, ending: str) -> None:
    context = serving.address.certificate.client_context()
    with starttls_sent(serving) as sock:
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
@external("swaks")
def test_swaks_uses_starttls(serving: StartedController) -> None:
    command = ["swaks", "--server", "127.0.0.1", "--port", str(serving.address.port), "--tls"]
    command += ["--from", "a@example.org", "--to", "b@example.org", "--body", "from swaks"]
    command += ["--tls-ca-path", str(serving.address.certificate.certificate), "--tls-verify"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    ((content, encrypted),) = serving.handler.messages
    assert b"from swaks" in content
    assert encrypted
