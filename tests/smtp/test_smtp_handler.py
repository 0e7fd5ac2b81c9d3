"""The smtp handler's texts: greeting, refusals, farewells, trace header, notes, log lines."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest
from support import smtp_fixtures
from support.smtp_harness import DIALOGUE, ENVELOPE, HOSTNAME, MAIL, RCPT, Served, serve

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings, Reason
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.smtp.mail_session import MailSession
from fastlisten.log_events import address_text

plain = smtp_fixtures.as_in_production


def test_trace_header(plain: Served) -> None:
    plain.say(DIALOGUE)
    (stored,) = plain.delivered()
    assert re.match(
        rb"Return-Path: <sender@example\.com>\r\n"
        rb"Received: from client\.example\.com \(\[127\.0\.0\.1\]\)\r\n"
        rb"\tby mx\.example\.org with ESMTP id [0-9]+\.M[0-9]+P[0-9]+Q[0-9]+R[0-9a-f]{8}\.\S+\r\n"
        rb"\tfor <alice@example\.org>;\r\n"
        rb"\t[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} \+0000\r\n"
        rb"Subject: x\r\n",
        stored,
    )


def test_received_without_for_and_with_smtp_after_helo(plain: Served) -> None:
    plain.say(b"HELO c\r\n", MAIL, RCPT, b"RCPT TO:<bob@example.org>\r\n", b"DATA\r\n.\r\n")
    (stored,) = plain.delivered("bob@example.org")
    assert b" with SMTP id " in stored
    assert b"for <" not in stored


@pytest.mark.parametrize(
    ("peer", "tls", "expected"),
    [
        ("2001:db8::1", True, b"from client.example.com ([IPv6:2001:db8::1])\r\n"),
        ("fe80::1%eth0", True, b"from client.example.com ([IPv6:fe80::1])\r\n"),
        ("", False, b"from client.example.com\r\n"),
    ],
)
def test_received_of_ipv6_and_unix_clients(peer: str, tls: bool, expected: bytes) -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    info = ConnectionInfo("smtp", peer, 0, tls=tls)
    engine = MailSession(handler, info).engine
    engine.receive(ENVELOPE)
    for _ in range(2):
        engine.next_event()
        engine.accept()
    text = handler.received(info, engine, "ID")
    assert expected in text
    assert (b" with ESMTPS id ID\r\n" if tls else b" with ESMTP id ID\r\n") in text


# --- the handler ----------------------------------------------------------------------------------


def test_greeting_refusals_and_farewells() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME, greeting="at your service"))
    assert handler.greeting == b"220 mx.example.org ESMTP at your service\r\n"
    assert SmtpHandler(HandlerSettings("s", "smtp", HOSTNAME)).greeting == (
        b"220 mx.example.org ESMTP\r\n"
    )
    refusals = {reason: handler.refusal(reason)[:10] for reason in Reason}
    assert refusals[Reason.LIMIT] == refusals[Reason.OVERLOAD] == b"421 4.3.2 "
    assert refusals[Reason.RATE] == refusals[Reason.ADDRESS] == b"421 4.7.0 "
    assert refusals[Reason.DENIED] == b"554 5.7.1 "
    farewells = {reason: handler.farewell(reason)[:10] for reason in Reason}
    assert farewells[Reason.IDLE] == farewells[Reason.FIRST_BYTE] == b"421 4.4.2 "
    assert farewells[Reason.SHUTDOWN] == b"421 4.3.2 "
    for reason in Reason:
        for text in (handler.refusal(reason), handler.farewell(reason)):
            assert text[10:].startswith(b"mx.example.org ")
            assert text.endswith(b"\r\n")
            assert text.count(b"\n") == 1


def test_handler_must_be_started() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    with pytest.raises(RuntimeError, match="not been started"):
        _ = handler.office


def test_handler_needs_a_data_directory() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    with pytest.raises(ValueError, match="data directory"):
        asyncio.run(handler.start())


@pytest.mark.parametrize(
    ("accounts", "notes"),
    [
        (
            None,
            "{} does not exist: no mail is accepted until "
            "`fastlisten account add NAME --config FILE` has created an account",
        ),
        ("[account.", "{} cannot be read: mail is deferred until this is fixed"),
        ("", "{} cannot be read: mail is deferred until this is fixed"),
        ("# none", "{} has no accounts: all mail will be rejected"),
        ('[account."a@b"]', ""),
    ],
)
def test_notes_about_the_accounts_file(tmp_path: Path, accounts: str | None, notes: str) -> None:
    with serve(tmp_path, accounts=accounts) as server:
        expected = notes.format(tmp_path / "accounts.toml")
        assert server.handler.notes() == ((expected,) if expected else ())


def test_delivery_log_names_the_listener(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten")
    plain.say(DIALOGUE)
    (record,) = [
        record for record in caplog.records if getattr(record, "event", "") == "message-delivered"
    ]
    assert record.getMessage().startswith("test: ")
    where = address_text("127.0.0.1", record.fields["port"])  # type: ignore[attr-defined]
    assert f"from <sender@example.com> at {where} to alice@example.org:" in record.getMessage()
