"""The dialogue in the log: the lines of both sides, and never a password or a message.

Rules of this file: sessions are real. Secrets are searched for in everything that was logged.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.accounts import cheap_hash
from support.smtp_harness import HELLO, MAIL, RCPT, Served, read_all, read_until, serve

from fastlisten import testing
from fastlisten.config import loads
from fastlisten.handlers.smtp import Controller, SmtpHandler
from fastlisten.handlers.smtp.engine.engine import SmtpEngine

NAME, PASSWORD = "alice@example.org", "correct horse"
SECRETS = (
    PASSWORD,
    base64.b64encode(PASSWORD.encode()).decode(),
    base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode()).decode(),
)


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of both sides, as in ``C: NOOP``."""
    records = [vars(one) for one in caplog.records if one.name == "fastlisten.dialogue"]
    return [f"{one['fields']['side'][0].upper()}: {one['fields']['line']}" for one in records]


def test_both_sides_are_logged_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, log_dialogue=True) as served:
        served.say(
            b"HELO c\r\n" + MAIL + RCPT + b"DATA\r\nSubject: quiet\r\n\r\n..x\r\n.\r\n"
            b"NO\0OP\r\nwhat is this\r\nQUIT\r\n"
        )
    lines = said(caplog)
    assert [line for line in lines if line.startswith("C")] == [
        "C: HELO c",
        "C: MAIL FROM:<sender@example.com>",
        "C: RCPT TO:<alice@example.org>",
        "C: DATA",
        "C: (message of 22 octets)",
        "C: (malformed line)",
        "C: (unknown command of 12 octets)",
        "C: QUIT",
    ]
    assert [line[:6] for line in lines if line.startswith("S")] == [
        *("S: 250", "S: 250", "S: 250", "S: 354", "S: 250", "S: 500", "S: 500", "S: 221"),
    ]
    assert lines[-1].startswith("S: 221 2.0.0 ")
    assert "quiet" not in caplog.text
    (end,) = [one for one in caplog.records if getattr(one, "event", "") == "session-ended"]
    dialogue = [vars(one)["fields"] for one in caplog.records if one.name == "fastlisten.dialogue"]
    assert {one["session"] for one in dialogue} == {vars(end)["fields"]["session"]}


def test_chunks_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, log_dialogue=True) as served:
        served.say(HELLO + MAIL + RCPT + b"BDAT 7 LAST\r\nquiet\r\nQUIT\r\n")
    assert "C: BDAT 7 LAST" in said(caplog)
    assert "quiet" not in caplog.text


def test_only_the_method_of_http_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A redirected browser, or a program that takes this for a web server's port."""
    with serve(tmp_path, log_dialogue=True) as served:
        served.say(b"GET /?password=quiet HTTP/1.1\r\nAuthorization: quiet\r\n\r\n")
    assert said(caplog)[0] == "C: GET (29 octets)"
    assert "quiet" not in caplog.text


def test_plain_engine_if_disabled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path) as served, served.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"250 HELP\r\n")
        assert type(served.protocol().engine) is SmtpEngine
    assert said(caplog) == []


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_listener_option(protocol: str) -> None:
    text = f'[{protocol}]\nlog-dialogue = true\n[server.listener.it]\nbind = "127.0.0.1:2525"\n'
    (listener,) = loads(f'{text}protocol = "{protocol}"\n').listeners
    assert listener[f"{protocol}.log-dialogue"] is True


# --- secrets ----------------------------------------------------------------------------------


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Served]:
    accounts = f'[account."{NAME}"]\npassword = "{cheap_hash(PASSWORD)}"\n'
    with serve(tmp_path, accounts=accounts, tls="starttls", log_dialogue=True) as served:
        yield served


WORD, RESPONSE = (one.encode() for one in SECRETS[1:])

ATTEMPTS: list[list[bytes]] = [
    [b"AUTH PLAIN " + RESPONSE],
    [b"auth plain " + RESPONSE],
    [b"AUTH  PLAIN  " + RESPONSE],
    [b"AUTH\tPLAIN\t" + RESPONSE],
    [b" AUTH PLAIN " + RESPONSE],
    [b"AUTH PLAIN", RESPONSE],
    [b"AUTH PLAIN", RESPONSE[:-2], RESPONSE],
    [b"AUTH LOGIN", b"YWxpY2VAZXhhbXBsZS5vcmc=", WORD],
    [b"AUTH LOGIN YWxpY2U=", WORD],
    [b"AUTH CRAM-MD5 " + RESPONSE, WORD],
    [b"AUTH " + RESPONSE, WORD],
    [b"AUTH " + WORD],
    [b"AUTH PLAIN " + RESPONSE + b" " + WORD],
    [b"AUTH PLAIN " + RESPONSE[:-1], RESPONSE],
    [WORD],
    [PASSWORD.encode()],
    [b"USER alice", b"PASS " + PASSWORD.encode()],
    [b"a1 LOGIN alice " + PASSWORD.encode()],
    [b"AUTH PLAIN " + RESPONSE + b"\0"],
    [b"AUTH PLAIN", b"*", RESPONSE],
    [b"AUTH\tPLAIN " + RESPONSE],
    [b"AUTH LOGIN\t" + WORD],
]


@pytest.mark.parametrize("lines", ATTEMPTS)
@pytest.mark.parametrize("over_tls", [True, False])
@pytest.mark.parametrize("pipelined", [True, False])
def test_passwords_are_never_logged(
    submission: Served,
    caplog: pytest.LogCaptureFixture,
    lines: list[bytes],
    over_tls: bool,
    pipelined: bool,
) -> None:
    with submission.secured() if over_tls else submission.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"250 HELP\r\n")
        if pipelined:
            client.sendall(b"".join(line + b"\r\n" for line in lines))
        else:
            for line in lines:
                client.sendall(line + b"\r\n")
                read_until(client, b"\r\n")
        client.sendall(b"*\r\nQUIT\r\n")
        read_until(client, b"Goodbye\r\n")
    logged = caplog.text + repr([vars(one) for one in caplog.records])
    for secret in SECRETS:
        assert secret not in logged
    assert "C: QUIT" in said(caplog)


# --- handlers written for aiosmtpd ------------------------------------------------------------


class Pushing:
    """Pushes a line before its reply."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        await server.push("250-wait")
        return "250 done"


def talk(port: int, *more: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(HELLO + MAIL + RCPT + b"DATA\r\nx\r\n.\r\n" + b"".join(more) + b"QUIT\r\n")
        return read_all(client)


def test_configured_aiosmtpd_handler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler,
            data_directory=str(tmp_path),
            options={"aiosmtpd-handler": f"{__name__}:Pushing", "log-dialogue": True},
        ) as at:
            await asyncio.to_thread(talk, at.port)

    asyncio.run(main())
    lines = said(caplog)
    assert lines[0] == "C: EHLO client.example.com"
    assert "C: (message of 3 octets)" in lines
    # A pushed line comes before the reply.
    assert lines.index("S: 250-wait") < lines.index("S: 250 done")


def test_controller_logs_to_aiosmtpds_logger(caplog: pytest.LogCaptureFixture) -> None:
    wanted = logging.getLogger("mail.log")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        caplog.clear()
        caplog.set_level(level, "mail.log")
        controller = Controller(Pushing(), hostname="127.0.0.1", port=0)
        controller.start()
        try:
            talk(controller.port, b"SECRET\r\n")
        finally:
            controller.stop()
        lines = [one.getMessage() for one in caplog.records if one.name == wanted.name]
        heard = [line for line in lines if " >> " in line]
        answered = [line for line in lines if " << " in line]
        assert bool(heard) == (level <= logging.INFO)
        assert bool(answered) == (level <= logging.DEBUG)
        assert said(caplog) == []
        assert "SECRET" not in caplog.text
        if heard:
            assert heard[0].startswith("('127.0.0.1', ")
            assert heard[0].endswith(" >> 'EHLO client.example.com'")
