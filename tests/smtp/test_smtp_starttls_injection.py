"""Plaintext after STARTTLS on real sockets is never executed after the handshake.

The attacker of CVE-2011-0411 appends commands to the client's plaintext and leaves the handshake
alone. Whatever is appended, and however it is split into segments, there is no TLS session then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raw_client import reset
from support.smtp_harness import DIALOGUE, DONE, ENVELOPE, HELLO, Served, codes, read_until, serve
from support.waiting import until

STARTTLS = b"STARTTLS\r\n"
INJECTED = b"RSET\r\n" + ENVELOPE + b"DATA\r\nSubject: evil\r\n\r\n.\r\n"

#: First octet of a TLS record: handshake and alert. Nothing else may follow the go-ahead.
RECORDS = (b"\x15", b"\x16")


@pytest.fixture
def served(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> Iterator[Served]:
    with serve(tmp_path, loop_factory=loop_factory, tls="starttls") as server:
        yield server
        # In any case the next client is served.
        assert codes(server.say(DIALOGUE)) == DONE


def client_hello(served: Served) -> bytes:
    """Return a ClientHello."""
    assert served.client_context is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = served.client_context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def rest(client: socket.socket) -> bytes:
    """Read to the end or a reset."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def go_ahead(served: Served) -> socket.socket:
    """Connect and send STARTTLS; the server waits for the handshake."""
    client = served.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(HELLO + STARTTLS)
    assert read_until(client, b"start TLS\r\n").endswith(b"220 2.0.0 Ready to start TLS\r\n")
    return client


@pytest.mark.parametrize("injected", [INJECTED, b"N", b"\r\n", b"\0"])
def test_plaintext_in_the_same_segment_is_refused(served: Served, injected: bytes) -> None:
    with served.connect() as client:
        client.sendall(HELLO + STARTTLS + injected)
        said = rest(client)
    assert said.endswith(
        b"554 5.5.0 mx.example.org Protocol synchronization error: data sent after STARTTLS\r\n"
    )
    assert codes(said) == [250, 554]
    until(lambda: served.protocols == [])
    assert served.delivered() == []


def test_early_client_hello_is_refused(served: Served) -> None:
    with served.connect() as client:
        client.sendall(HELLO + STARTTLS + client_hello(served))
        assert codes(rest(client)) == [250, 554]


@pytest.mark.parametrize("injected", [INJECTED, b"NOOP\r\nQUIT\r\n", b"\r\n", b"\0"])
def test_plaintext_in_a_later_segment_breaks_the_handshake(served: Served, injected: bytes) -> None:
    with go_ahead(served) as client:
        client.sendall(injected)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            served.encrypt(client)
    until(lambda: served.protocols == [])
    assert served.delivered() == []


@pytest.mark.parametrize("waits", [True, False])
def test_plaintext_at_every_split_is_never_executed(served: Served, waits: bool) -> None:
    stream = HELLO + STARTTLS + b"NOOP\r\nQUIT\r\n"
    asked = len(HELLO + STARTTLS)
    hello = client_hello(served)
    for edge in range(1, len(stream)):
        with served.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(stream[:edge])
            said = b""
            if waits and len(HELLO) <= edge <= asked:
                said = read_until(client, b" HELP\r\n" if edge < asked else b"start TLS\r\n")
            with contextlib.suppress(ConnectionError):  # closed already
                client.sendall(stream[edge:])
                client.sendall(hello)
            said += rest(client)
        replies, found, records = said.partition(b"220 2.0.0 Ready to start TLS\r\n")
        if found:
            # The kernel delivered the first piece alone.
            assert edge == asked
            assert codes(replies) == [250]
            assert records == b"" or records.startswith(RECORDS)
            assert b"\n250 " not in records
        else:
            assert not (waits and edge == asked)
            assert codes(replies) in ([250, 554], [250], [])  # a reset may discard replies
    until(lambda: served.protocols == [])
    assert served.delivered() == []


@pytest.mark.parametrize("length", [0, 1, 5, 50, None])
@pytest.mark.parametrize("abrupt", [True, False])
def test_disconnect_during_the_handshake(
    served: Served, length: int | None, abrupt: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten.smtp")
    client = go_ahead(served)
    protocol = served.protocol()
    assert served.call(lambda: (protocol.busy, protocol.working)) == (True, True)
    client.sendall(client_hello(served)[:length])
    if abrupt:
        reset(client)
    else:
        client.shutdown(socket.SHUT_WR)
        assert rest(client)[:1] in (b"", *RECORDS)
        client.close()
    until(lambda: served.protocols == [])
    until(lambda: len(caplog.records) == 2)
    record, end = caplog.records
    assert record.levelno == end.levelno == logging.INFO
    assert re.match(r"test: TLS handshake with \[127.0.0.1\]:\d+ failed: .", record.getMessage())
    assert " ended: tls-failed;" in end.getMessage()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" * 100])
def test_garbage_instead_of_a_handshake(served: Served, garbage: bytes) -> None:
    with go_ahead(served) as client:
        client.sendall(garbage)
        assert rest(client)[:1] in (b"", *RECORDS)
    until(lambda: served.protocols == [])


def test_handshake_in_single_octets(served: Served) -> None:
    assert served.client_context is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = served.client_context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with go_ahead(served) as client:

        def until_done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    pass
                finally:
                    for octet in outgoing.read():
                        client.sendall(bytes([octet]))
                incoming.write(client.recv(65536))

        until_done(tls.do_handshake)
        until_done(lambda: tls.write(DIALOGUE))
        said = b""
        while data := until_done(tls.read):
            said += data
        until_done(tls.unwrap)
    assert codes(said) == DONE
