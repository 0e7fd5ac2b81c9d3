"""Relaying through real servers: another fastlisten, the same server, and aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiosmtpd.smtp import SMTP
from support.accounts import cheap_hash
from support.relay import FOREIGN, Relay, client_of, rcpt, serving
from support.smtp_harness import MAIL, Served
from support.waiting import until

from fastlisten import new_event_loop, testing
from fastlisten.mail.relay import own_addresses, relay_delivery
from fastlisten.mail.relay import relay as smtp_relay

THERE = f"""
[account."{FOREIGN}"]
password = "{cheap_hash("parrot")}"

[account."dora@elsewhere.example"]
"""


def message(seed: int) -> bytes:
    """Return lines of all octets that DATA may contain, many of them beginning with dots."""
    source = random.Random(seed)
    octets = bytes(octet for octet in range(256) if octet not in b"\r\n")
    lines = [
        source.choice((b"", b".", b"..", b".x"))
        + bytes(source.choices(octets, k=source.randrange(80)))
        for _ in range(5000)
    ]
    return b"Subject: x\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"


def stuffed(content: bytes) -> bytes:
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Served]:
    """The relay, which requires STARTTLS and AUTH."""
    place = tmp_path / "there"
    place.mkdir()
    (tmp_path / "ca.pem").write_bytes(testing._pair().cert)
    # The client is a server that sends for many users.
    options = {"role": "submission", "sender_must_match": False}
    with serving(place, None, accounts=THERE, tls="starttls", **options) as server:
        yield server


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop, new_event_loop])
def here(request: pytest.FixtureRequest, tmp_path: Path, there: Served) -> Iterator[Served]:
    place = tmp_path / "here"
    place.mkdir()
    options = {
        "relay_tls": "verify",
        "relay_ca": str(tmp_path / "ca.pem"),
        "relay_user": FOREIGN,
        "relay_password": "parrot",
    }
    relay = Relay(port=there.port)
    with serving(place, relay, loop_factory=request.param, **options) as server:
        yield server


def test_relay_to_another_fastlisten(here: Served, there: Served) -> None:
    content = message(1)
    with client_of(here) as client:
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert client.say(rcpt("nobody@elsewhere.example")).startswith(
            b"550 5.1.1 The relay says: No such mailbox here"
        )
        assert client.say(rcpt("dora@elsewhere.example")).startswith(b"250 ")
        assert client.say(rcpt("alice@example.org")).startswith(b"250 ")
        client.say(b"DATA")
        assert b"; the relay says: Ok, id " in client.say(stuffed(content))
    (mine,), (first,), (second,) = (
        here.delivered(),
        there.delivered(FOREIGN),
        there.delivered("dora@elsewhere.example"),
    )
    assert first == second
    assert first.endswith(content)
    head = first.removesuffix(content)
    assert head.startswith(b"Return-Path: <sender@example.com>\r\nReceived: from mx.example.org (")
    assert head.count(b"Return-Path") == 1
    assert head.count(b" with ESMTPSA id ") == 2
    assert mine.removeprefix(b"Return-Path: <sender@example.com>\r\n") in first
    until(lambda: there.protocols == [])


def test_binary_message_with_international_address(here: Served, there: Served) -> None:
    binary = b"Subject: x\r\n\r\n" + bytes(random.Random(2).randbytes(600_000))
    with client_of(here) as client:
        assert client.say(b"MAIL FROM:<\xc3\xa4@x.example> BODY=BINARYMIME SMTPUTF8")[:3] == b"250"
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        client.sock.sendall(b"BDAT %d LAST\r\n" % len(binary) + binary)
        assert client.reply().startswith(b"250 ")
    (stored,) = there.delivered(FOREIGN)
    assert stored.endswith(binary)
    assert stored.startswith("Return-Path: <ä@x.example>\r\n".encode())
    assert stored.count(b" with UTF8SMTPSA id ") == 2


@pytest.mark.parametrize("detected", [True, False])
def test_relay_to_itself_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detected: bool
) -> None:
    """Within a process the loop is detected; otherwise it ends at the limit of sessions."""
    monkeypatch.setattr(smtp_relay, "SESSIONS", 6)
    if not detected:
        monkeypatch.setattr(relay_delivery, "is_own_address", lambda peer, port: False)
    (tmp_path / "ca.pem").write_bytes(testing._pair().cert)
    options = {
        "relay_tls": "implicit",
        "relay_ca": str(tmp_path / "ca.pem"),
        "relay_user": "alice@example.org",
        "relay_password": "wonder",
        "relay_timeout": 0.5,
    }
    with serving(tmp_path, Relay(port=1), **options) as served:
        of = served.handler.relay
        assert of is not None
        object.__setattr__(of.settings, "port", served.port)
        with client_of(served) as client:
            client.say(MAIL)
            reply = client.say(rcpt(FOREIGN))
            if detected:
                assert reply.startswith(b"451 4.4.6 The relay says: Mail loops back to myself: ")
            else:
                assert reply.startswith(b"451 4.")
            # If the relay replied in time, its session lasts as long as the transaction.
            client.say(b"RSET")
            until(lambda: of.sessions == 0)
            until(lambda: len(served.protocols) == 1)
        until(lambda: not own_addresses._ends)


class Keeper:
    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 kept"


@contextlib.contextmanager
def aiosmtpd(handler: object) -> Iterator[int]:
    """Serve in a thread; yield the port (aiosmtpd's controller accepts no ephemeral one)."""
    ready = threading.Event()
    found: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(handler, enable_SMTPUTF8=True), "127.0.0.1", 0
        )
        done = asyncio.Event()
        found.extend((loop, done.set, server.sockets[0].getsockname()[1]))
        ready.set()
        async with server:
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield found[2]
    finally:
        found[0].call_soon_threadsafe(found[1])
        thread.join(20)


def test_relay_to_aiosmtpd(tmp_path: Path) -> None:
    keeper = Keeper()
    with aiosmtpd(keeper) as port, serving(tmp_path, Relay(port=port)) as served:
        with client_of(served) as client:
            client.say("MAIL FROM:<ä@x.example> SMTPUTF8 BODY=8BITMIME".encode())
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
            assert client.say("RCPT TO:<ü@x.example>".encode()).startswith(b"250 ")
            client.say(b"DATA")
            content = message(3)
            assert client.say(stuffed(content)).endswith(b"; the relay says: kept\r\n")
        (envelope,) = keeper.envelopes
        assert envelope.mail_from == "ä@x.example"
        assert envelope.rcpt_tos == [FOREIGN, "ü@x.example"]
        assert envelope.original_content.endswith(b"\r\n" + content)
        assert "SMTPUTF8" in envelope.mail_options
