"""LMTP (RFC 2033): a reply for each recipient, about that recipient alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import break_maildir
from support.relay import USERS
from support.smtp_harness import HOSTNAME, MAIL, MESSAGE, RCPT, Served, body_of, codes, serve

from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.registry import registered_handler
from fastlisten.handlers.smtp import LmtpHandler

HELLO = b"LHLO client.example.com\r\n"
BOB = b"RCPT TO:<bob@example.org>\r\n"
NOBODY = b"RCPT TO:<nobody@example.org>\r\n"
ELSEWHERE = b"RCPT TO:<carol@elsewhere.example>\r\n"
DATA = b"DATA\r\n" + MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, accounts=USERS, lmtp=True) as server:
        yield server


def test_registered_with_lmtp_greeting() -> None:
    assert registered_handler("lmtp") is LmtpHandler
    handler = LmtpHandler(HandlerSettings("x", "lmtp", HOSTNAME, greeting="hello"))
    assert handler.greeting == f"220 {HOSTNAME} LMTP hello\r\n".encode()
    assert (handler.default_port, handler.name) == (24, "lmtp")
    assert handler.limits.mechanisms == ()


def test_one_reply_per_recipient_including_duplicates(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.smtp")
    said = served.say(HELLO + MAIL + RCPT + NOBODY + BOB + ELSEWHERE + RCPT + DATA + b"QUIT\r\n")
    assert codes(said) == [250, 250, 250, 550, 250, 550, 250, 354, 250, 250, 250, 221]
    assert b"550 5.1.1 " in said
    assert b"550 5.7.1 " in said
    (stored,), (other,) = served.delivered(), served.delivered("bob@example.org")
    assert body_of(stored) == body_of(other) == MESSAGE
    assert b" with LMTP id " in stored
    assert caplog.text.count("octets delivered") == 1


def test_data_without_recipients_is_refused(served: Served) -> None:
    said = served.say(HELLO + MAIL + NOBODY + b"DATA\r\nNOOP\r\nQUIT\r\n")
    assert codes(said) == [250, 250, 550, 503, 250, 221]


def test_bdat(served: Served) -> None:
    said = served.say(
        HELLO + MAIL + RCPT + BOB + b"BDAT 9\r\nSubject: BDAT 7 LAST\r\nx\r\n\r\n\r\n" + b"QUIT\r\n"
    )
    assert codes(said) == [250, 250, 250, 250, 250, 250, 250, 221]
    assert body_of(served.delivered()[0]) == b"Subject: x\r\n\r\n\r\n"


def test_ehlo_and_helo_are_refused(served: Served) -> None:
    assert codes(served.say(b"EHLO c\r\nHELO c\r\n" + MAIL)) == [500, 500, 503]


@pytest.mark.parametrize(("number", "expected"), [(5, b"451 4.3.0 "), (28, b"452 4.3.1 ")])
def test_failure_affects_only_its_recipient(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    expected: bytes,
) -> None:
    break_maildir("bob@example.org", number, monkeypatch)
    said = served.say(HELLO + MAIL + BOB + RCPT + BOB + DATA + b"QUIT\r\n")
    lines = said.splitlines()[-4:]
    assert [line[:3] for line in lines] == [expected[:3], b"250", expected[:3], b"221"]
    assert lines[0].startswith(expected)
    assert len(served.delivered()) == 1
    assert served.delivered("bob@example.org") == []
    assert "not delivered to bob@example.org: " in caplog.text


def test_failure_of_all_recipients(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    break_maildir("example.org", 28, monkeypatch)
    said = served.say(HELLO + MAIL + BOB + RCPT + DATA + MAIL + b"QUIT\r\n")
    assert codes(said) == [250, 250, 250, 250, 354, 452, 452, 250, 221]
    assert served.left_over() == []


def test_large_message_over_tls(tmp_path: Path) -> None:
    with serve(tmp_path, accounts=USERS, lmtp=True, tls="implicit") as served:
        big = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 30_000
        with served.connect() as client:
            client.sendall(HELLO + MAIL + RCPT + BOB + b"DATA\r\n" + big + b".\r\nQUIT\r\n")
            said = b""
            while piece := client.recv(65536):
                said += piece
        assert codes(said) == [250, 250, 250, 250, 354, 250, 250, 221]
        assert body_of(served.delivered()[0]) == big
        assert b" with LMTPS id " in served.delivered()[0]
