"""LOGIN, AUTHENTICATE, STARTTLS and what is announced before and after (RFC 3501 6.2, RFC 8314).

Rules of this file: the listener decides about TLS, the client about everything else. How often
passwords may be guessed is a matter of mail/logins.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, PASSWORD, ImapServer, Lines, serve_imap
from support.waiting import until

from fastlisten.mail.logins.logins import Logins, LoginsBusyError

PLAIN = base64.b64encode(f"\0{ADDRESS}\0{PASSWORD}".encode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        yield served


@pytest.fixture
def starttls(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path, tls="starttls") as served:
        yield served


def capabilities(line: bytes) -> set[bytes]:
    return set(line.partition(b"CAPABILITY ")[2].partition(b"]")[0].split())


def test_greeting_and_capabilities(server: ImapServer) -> None:
    client = server.connect()
    before = capabilities(client.greeting)
    assert client.greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
    assert {b"SASL-IR", b"LITERAL+", b"AUTH=PLAIN", b"AUTH=LOGIN"} <= before
    assert not before & {b"STARTTLS", b"LOGINDISABLED", b"UIDPLUS"}
    assert capabilities(client.ok("CAPABILITY")[0]) == before
    (logged_in,) = client.say(f"LOGIN {ADDRESS} {PASSWORD}")
    after = capabilities(logged_in)
    assert {b"IMAP4rev1", b"UIDPLUS", b"MOVE", b"QRESYNC", b"APPENDLIMIT=52428800"} <= after
    assert not any(name.startswith(b"AUTH=") for name in after)
    assert capabilities(client.ok("CAPABILITY")[0]) == after


@pytest.mark.parametrize(
    "commands",
    [
        [b"AUTHENTICATE PLAIN " + PLAIN],
        [b"AUTHENTICATE PLAIN", PLAIN],
        [b"AUTHENTICATE LOGIN", base64.b64encode(b"alice@example.org"), b"d29uZGVy"],
        [b'LOGIN "alice@example.org" {6+}\r\nwonder'],
    ],
)
def test_ways_to_log_in(server: ImapServer, commands: list[bytes]) -> None:
    client = server.connect()
    client.send(b"a " + commands[0] + b"\r\n")
    for response in commands[1:]:
        assert client.response().startswith(b"+ ")
        client.send(response + b"\r\n")
    assert client.response().startswith(b"a OK [CAPABILITY ")
    client.ok("SELECT INBOX")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (f"LOGIN {ADDRESS} wrong".encode(), b"NO [AUTHENTICATIONFAILED] "),
        (b"LOGIN nobody@example.org wonder", b"NO [AUTHENTICATIONFAILED] "),
        (b'LOGIN "" ""', b"NO [AUTHENTICATIONFAILED] "),
        (b"LOGIN {1+}\r\n\xff x", b"NO [AUTHENTICATIONFAILED] "),
        (b"AUTHENTICATE PLAIN " + base64.b64encode(b"eve\0alice@example.org\0wonder"),
         b"NO [AUTHORIZATIONFAILED] "),
        (b"AUTHENTICATE PLAIN " + base64.b64encode(b"alice@example.org"), b"BAD "),
        (b"AUTHENTICATE CRAM-MD5", b"NO "),
    ],
)  # fmt: skip
def test_failed_logins(server: ImapServer, command: bytes, answer: bytes) -> None:
    client = server.connect()
    (tagged,) = client.say(command)
    assert tagged.startswith(answer)
    assert client.say("SELECT INBOX")[-1].startswith(b"BAD ")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")


def test_cancelled_dialogue(server: ImapServer) -> None:
    client = server.connect()
    client.send(b"a AUTHENTICATE PLAIN\r\n")
    assert client.response() == b"+ "
    client.send(b"*\r\n")
    assert client.response().startswith(b"a BAD ")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")


def test_busy_is_no_wrong_password(server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*arguments: object) -> None:
        raise LoginsBusyError("too many")

    client = server.connect()
    with monkeypatch.context() as patch:
        patch.setattr(Logins, "check", busy)
        assert client.say(f"LOGIN {ADDRESS} {PASSWORD}")[-1].startswith(b"NO [UNAVAILABLE] ")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")


def test_logins_are_logged_and_counted(
    server: ImapServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.imap")
    client = server.connect()
    client.say(f"LOGIN {ADDRESS} wrong")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
    assert client.ok("LOGOUT") == [b"* BYE Logging out"]
    assert client.stream.read() == b""
    assert f": logged in as {ADDRESS}" in caplog.text
    client.close()
    until(lambda: "ended: quit; " in caplog.text)
    assert server.handler is not None
    counts = server.handler.counts
    assert counts.logins == {"failed": 1, "succeeded": 1}
    assert counts.ends == {"quit": 1}


# --- without TLS ----------------------------------------------------------------------------------


def test_no_password_in_clear(starttls: ImapServer) -> None:
    client = starttls.connect()
    assert {b"STARTTLS", b"LOGINDISABLED"} <= capabilities(client.greeting)
    assert b"AUTH=PLAIN" not in client.greeting
    for command in (f"LOGIN {ADDRESS} {PASSWORD}".encode(), b"AUTHENTICATE PLAIN " + PLAIN):
        assert client.say(command)[-1].startswith(b"NO [PRIVACYREQUIRED] ")


def test_starttls(starttls: ImapServer) -> None:
    client = starttls.connect()
    client.ok("STARTTLS")
    client.stream.close()
    client.connection = starttls.encrypt(client.connection)
    client.stream = client.connection.makefile("rb")
    names = capabilities(client.ok("CAPABILITY")[0])
    assert b"AUTH=PLAIN" in names
    assert not names & {b"STARTTLS", b"LOGINDISABLED"}
    assert client.say("STARTTLS")[-1].startswith(b"BAD ")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
    client.ok("SELECT INBOX")


def test_nothing_sent_before_tls_is_carried_out(starttls: ImapServer) -> None:
    client = starttls.connect()
    client.send(b"a STARTTLS\r\nb NOOP\r\n")
    assert client.response().startswith(b"a BAD ")
    assert client.stream.read() == b""


def test_session_in_clear_without_a_certificate(tmp_path: Path) -> None:
    with serve_imap(tmp_path, tls=None) as server:
        client: Lines = server.connect()
        assert b"STARTTLS" not in client.greeting
        assert client.say("STARTTLS")[-1].startswith(b"BAD ")
