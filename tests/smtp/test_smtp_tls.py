"""SMTP over TLS on real sockets: delivery, session state, trace header, ends."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from support.smtp_harness import (
    DIALOGUE,
    DONE,
    ENVELOPE,
    HELLO,
    HOSTNAME,
    MAIL,
    MESSAGE,
    RCPT,
    Served,
    Tls,
    body_of,
    codes,
    cut,
    exchange,
    read_all,
    read_until,
    serve,
)
from support.waiting import until

from fastlisten._tls import use_memory

KINDS: list[Tls] = ["implicit", "starttls"]


@pytest.fixture(params=KINDS)
def served(
    request: pytest.FixtureRequest,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    tmp_path: Path,
) -> Iterator[Served]:
    """Implicit TLS and STARTTLS, on both loops."""
    with serve(tmp_path, loop_factory=loop_factory, tls=request.param) as server:
        yield server


@pytest.fixture
def starttls(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, loop_factory=uvloop.new_event_loop, tls="starttls") as server:
        yield server


@pytest.fixture
def implicit(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, loop_factory=uvloop.new_event_loop, tls="implicit") as server:
        yield server


def encrypted(served: Served) -> ssl.SSLSocket:
    """Connect with implicit TLS or STARTTLS, and read the greeting."""
    if served.handler.settings.tls_implicit:
        client = served.connect()
        assert isinstance(client, ssl.SSLSocket)
        return client
    return served.secured()


def session(served: Served) -> smtplib.SMTP:
    """The same with smtplib."""
    if served.handler.settings.tls_implicit:
        return smtplib.SMTP_SSL("127.0.0.1", served.port, timeout=20, context=served.client_context)
    client = smtplib.SMTP("127.0.0.1", served.port, timeout=20)
    client.ehlo()
    assert client.has_extn("starttls")
    assert client.starttls(context=served.client_context)[0] == 220
    return client


# --- dialogues ------------------------------------------------------------------------------------


def test_smtplib_delivers(served: Served) -> None:
    with session(served) as client:
        client.sendmail("sender@example.com", ["alice@example.org", "bob@example.org"], MESSAGE)
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS") == (503, b"5.5.1 TLS already active")
        assert client.noop()[0] == 250
    for account in ("alice@example.org", "bob@example.org"):
        (stored,) = served.delivered(account)
        assert body_of(stored) == MESSAGE
    assert served.left_over() == []


@pytest.mark.parametrize("size", [1, 13, 65536])
def test_result_is_independent_of_segmentation(served: Served, size: int) -> None:
    with encrypted(served) as client:
        for piece in cut(DIALOGUE, size):
            client.sendall(piece)
        assert codes(read_all(client)) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [MESSAGE]


def test_large_message_and_many_replies(served: Served) -> None:
    message = b"0123456789abcdef\r\n" * 1_000_000
    helps = 30_000
    with encrypted(served) as client:
        stream = ENVELOPE + b"DATA\r\n" + message + b".\r\n" + b"HELP\r\n" * helps + b"QUIT\r\n"
        said = exchange(client, stream)
    assert codes(said) == [250, 250, 250, 354, 250, *[214] * helps, 221]
    assert [body_of(stored) for stored in served.delivered()] == [message]


def test_plaintext_and_tls_sessions_at_once(starttls: Served) -> None:
    with starttls.secured() as first, starttls.connect() as second:
        first.sendall(ENVELOPE)
        second.sendall(DIALOGUE)
        assert codes(read_all(second)) == DONE
        first.sendall(b"DATA\r\n.\r\nQUIT\r\n")
        assert codes(read_all(first))[-3:] == [354, 250, 221]
    plain, secure = starttls.delivered()
    assert b" with ESMTP id " in plain
    assert b"(using TLS" not in plain
    assert b" with ESMTPS id " in secure


def test_handshake_waits_for_replies_to_be_read(starttls: Served) -> None:
    helps = 30_000  # 5 MB of replies: more than the kernel keeps for both ends
    with starttls.connect() as plain:
        commands = HELLO + b"HELP\r\n" * helps + b"STARTTLS\r\n"
        sender = threading.Thread(target=plain.sendall, args=(commands,))
        sender.start()
        protocol = starttls.protocol()
        until(lambda: protocol._write_paused)
        said = read_until(plain, b"start TLS\r\n")
        sender.join()
        assert codes(said) == [250, *[214] * helps, 220]
        with starttls.encrypt(plain) as client:
            client.sendall(DIALOGUE)
            assert codes(read_all(client)) == DONE


# --- session state --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", MAIL, MAIL + RCPT])
def test_plaintext_state_is_discarded(starttls: Served, before: bytes) -> None:
    with starttls.connect() as plain:
        plain.sendall(HELLO + before + b"STARTTLS\r\n")
        assert read_until(plain, b"start TLS\r\n").endswith(b"220 2.0.0 Ready to start TLS\r\n")
        with starttls.encrypt(plain) as client:
            protocol = starttls.protocol()
            assert not starttls.call(lambda: protocol.busy)
            for command in (MAIL, RCPT, b"DATA\r\n"):
                client.sendall(command)
                assert codes(read_until(client, b"\r\n")) == [503]
            client.sendall(DIALOGUE)
            assert codes(read_all(client)) == DONE
    (stored,) = starttls.delivered()
    assert body_of(stored) == MESSAGE


def test_starttls_needs_ehlo(starttls: Served) -> None:
    said = starttls.say(b"STARTTLS\r\nHELO c\r\nSTARTTLS\r\nQUIT\r\n")
    assert codes(said) == [503, 250, 503, 221]


def test_plaintext_session_where_starttls_is_offered(starttls: Served) -> None:
    assert codes(starttls.say(DIALOGUE)) == DONE


# --- trace header ---------------------------------------------------------------------------------


def trace(served: Served) -> bytes:
    (stored,) = served.delivered()
    return stored.partition(b"Subject:")[0]


@pytest.fixture(params=[False, True], ids=["socket", "memory"])
def interface(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways in which transports use Python's ssl module."""
    before = use_memory(request.param)
    yield
    use_memory(before)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_received_names_tls_version_and_cipher(
    interface: None, served: Served, version: ssl.TLSVersion
) -> None:
    assert served.client_context is not None
    served.client_context.minimum_version = served.client_context.maximum_version = version
    with encrypted(served) as client:
        cipher = client.cipher()
        assert cipher is not None
        client.sendall(DIALOGUE)
        assert codes(read_all(client)) == DONE
    text = trace(served).decode()
    expected = "TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else "TLSv1.2"
    assert (
        "Received: from client.example.com ([127.0.0.1])\r\n"
        f"\t(using {expected} with cipher {cipher[0]} ({cipher[2]} bits))\r\n"
        f"\tby {HOSTNAME} with ESMTPS id "
    ) in text


@pytest.mark.parametrize(
    ("hello", "parameters", "kind"),
    [
        (b"HELO c\r\n", b"", b"SMTP"),
        (b"EHLO c\r\n", b"", b"ESMTPS"),
        (b"EHLO c\r\n", b" SMTPUTF8", b"UTF8SMTPS"),
        (b"EHLO c\r\nHELO c\r\n", b"", b"SMTP"),
    ],
)
def test_received_with_protocol(
    implicit: Served, hello: bytes, parameters: bytes, kind: bytes
) -> None:
    with encrypted(implicit) as client:
        mail = MAIL[:-2] + parameters + b"\r\n"
        client.sendall(hello + mail + RCPT + b"DATA\r\nSubject: x\r\n.\r\nQUIT\r\n")
        assert codes(read_all(client))[-1] == 221
    assert b" with " + kind + b" id " in trace(implicit)
    assert b"\t(using TLSv1.3 with cipher TLS_" in trace(implicit)


# --- ends by the client ---------------------------------------------------------------------------


def test_both_sides_send_close_notify(served: Served) -> None:
    with encrypted(served) as client:
        client.sendall(b"QUIT\r\n")
        assert codes(read_all(client)) == [221]  # an end without close_notify would be an error
        client.unwrap()
    until(lambda: served.protocols == [])


@pytest.mark.parametrize("said", [b"", HELLO, ENVELOPE, ENVELOPE + b"DATA\r\nx\r\n"])
@pytest.mark.parametrize("polite", [True, False])
def test_disconnect_leaves_nothing(
    served: Served, said: bytes, polite: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with encrypted(served) as client:
        client.sendall(said)
        if said:
            read_until(client, b"\r\n")
        if polite:
            client.unwrap().close()
        else:
            client.shutdown(socket.SHUT_RDWR)
    until(lambda: served.protocols == [])
    assert served.delivered() == []
    until(lambda: served.left_over() == [])
    assert [record.getMessage() for record in caplog.records] == []
