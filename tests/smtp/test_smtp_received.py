"""Received fields: the one we add, and the count of those that a message has."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_driver import EngineDriver
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import ENVELOPE, MAIL, RCPT, Served, body_of, codes, serve

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp import LmtpHandler, SmtpHandler
from fastlisten.handlers.smtp.received_count import ReceivedCount

HOP = b"Received: from a by b; Sun, 22 Nov 2026 12:00:00 +0000\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("hello", "tls", "auth", "words", "expected"),
    [
        ("HELO", False, False, "", "SMTP"),
        ("EHLO", False, False, "", "ESMTP"),
        ("EHLO", False, True, "", "ESMTPA"),
        ("EHLO", True, False, "", "ESMTPS"),
        ("EHLO", True, True, "", "ESMTPSA"),
        ("EHLO", False, False, " SMTPUTF8", "UTF8SMTP"),
        ("EHLO", True, False, " SMTPUTF8", "UTF8SMTPS"),
        ("EHLO", True, True, " SMTPUTF8", "UTF8SMTPSA"),
        ("LHLO", False, False, "", "LMTP"),
        ("LHLO", True, False, "", "LMTPS"),
        ("LHLO", True, False, " SMTPUTF8", "UTF8LMTPS"),
    ],
)
def test_with_protocol(hello: str, tls: bool, auth: bool, words: str, expected: str) -> None:
    kind, protocol = (LmtpHandler, "lmtp") if hello == "LHLO" else (SmtpHandler, "smtp")
    handler = kind(HandlerSettings("x", protocol, "mx.example.org"))
    login = "AUTH PLAIN AGEAYg==\r\n" if auth else ""
    driven = EngineDriver(tls, protocol=protocol, mechanisms=("PLAIN",), auth_in_clear=True)
    driven.engine.receive(f"{hello} c\r\n{login}MAIL FROM:<a@b.example>{words}\r\n".encode() + RCPT)
    while driven.engine.next_event() is not None:
        driven.engine.accept()
    info = ConnectionInfo("x", "192.0.2.1", 1, tls=tls)
    text = handler.received(info, driven.engine, "ID").decode()
    assert f"\r\n\tby mx.example.org with {expected} id ID\r\n\tfor <alice@example.org>;" in text
    assert re.fullmatch(r"(?:[^\r\n]{1,200}\r\n)+", text)


@pytest.mark.parametrize("hops", [99, 100])
def test_hop_count_at_the_limit(served: Served, hops: int) -> None:
    assert codes(served.say(ENVELOPE, b"DATA\r\n" + HOP * hops + b"\r\n.\r\n"))[-1] == 250
    (stored,) = served.delivered()
    assert body_of(stored) == HOP * hops + b"\r\n"


@pytest.mark.parametrize("size", [0, 400_000])
def test_hop_count_over_the_limit(served: Served, size: int) -> None:
    body = b"0123456789abcdef\r\n" * (size // 18)
    message = ENVELOPE + b"DATA\r\n" + HOP * 101 + b"\r\n" + body + b".\r\n"
    replies = served.say(message + MAIL + RCPT + b"DATA\r\n.\r\n")
    assert codes(replies) == [250, 250, 250, 354, 554, 250, 250, 354, 250]
    assert b"554 5.4.6 Too many hops; the message is looping\r\n" in replies
    assert len(served.delivered()) == 1
    assert served.left_over() == []


def test_delivery_is_abandoned_at_once(served: Served) -> None:
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n" + HOP * 3000)
        protocol = served.protocol()
        while protocol._user._message is None or not protocol._user._message.looping:
            pass
        assert protocol._user._message.received > 100
        assert served.left_over() == []


def test_max_received(tmp_path: Path) -> None:
    with serve(tmp_path, max_received=10) as served:
        assert codes(served.say(ENVELOPE, b"DATA\r\n" + HOP * 11 + b"\r\n.\r\n"))[-1] == 554
        assert codes(served.say(ENVELOPE, b"DATA\r\n" + HOP * 10 + b"\r\n.\r\n"))[-1] == 250


def test_received_lines_in_the_body_do_not_count(served: Served) -> None:
    assert codes(served.say(ENVELOPE, b"DATA\r\n\r\n" + HOP * 200 + b".\r\n"))[-1] == 250
    text = b"DATA\r\nSubject: x\r\n\r\n" + HOP * 200 + b".\r\n"
    assert codes(served.say(ENVELOPE, text))[-1] == 250


def test_lmtp_replies_for_each_recipient(tmp_path: Path) -> None:
    with serve(tmp_path, lmtp=True) as served:
        said = served.say(
            b"LHLO c\r\n" + MAIL + RCPT + RCPT + b"DATA\r\n" + HOP * 101 + b"\r\n.\r\n"
        )
        assert codes(said) == [250, 250, 250, 250, 354, 554, 554]


def test_looping_message_is_not_relayed(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(HOP * 101 + b"\r\n.\r\n").startswith(b"554 5.4.6 ")
    assert relay.messages == []


# --- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (b"", 0),
        (b"Received: x", 1),
        (b"received:x\r\nRECEIVED \t: y\r\n\r\n", 2),
        (b"X-Received: x\r\n Received: folded\r\nReceived-SPF: x\r\nSubject: Received:\r\n\r\n", 0),
        (b"\r\nReceived: x\r\n", 0),
        (b"A: b\r\n\r\nReceived: x\r\n", 0),
        (b"A: " + b"x" * 5000 + b"\r\nReceived: x\r\n\r\n", 1),
        (b"A: \rReceived: x\nReceived: y\r\n\r\n", 0),
    ],
)
def test_received_count(message: bytes, count: int) -> None:
    hops = ReceivedCount()
    hops.add(message + (b"" if message.endswith(b"\r\n") else b"\r\n"))
    assert hops.count == count


_PARTS = st.sampled_from(
    [b"Received: x", b"received:", b"R", b"eceived: ", b"\r\n", b"\r", b"\n", b" ", b"x" * 70, b":"]
)


@given(st.lists(_PARTS, max_size=30).map(b"".join), st.lists(st.integers(0, 400), max_size=8))
def test_received_count_is_independent_of_segmentation(message: bytes, cuts: list[int]) -> None:
    message += b"\r\n"
    whole = ReceivedCount()
    whole.add(message)
    pieces = ReceivedCount()
    places = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    for start, end in itertools.pairwise(places):
        pieces.add(message[start:end])
    assert (pieces.count, pieces.over) == (whole.count, whole.over)
    assert len(pieces._rest) <= 70
