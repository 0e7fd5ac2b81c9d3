"""Every negative reply is logged: one line with client, command and reason, throttled in a flood.

Rules of this file: real clients; the tests look at messages and fields of log records. The log
never contains what may be a password, nor client data that could forge a line.
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
from support.logged import events
from support.smtp_harness import (
    ENVELOPE,
    HELLO,
    MAIL,
    RCPT,
    Served,
    codes,
    read_all,
    read_until,
    serve,
)
from support.waiting import until

from fastlisten import testing
from fastlisten.handlers.smtp import SmtpHandler

PASSWORD = "correct horse"
SECRET = base64.b64encode(f"\0alice@example.org\0{PASSWORD}".encode())


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as served:
        yield served


@pytest.mark.parametrize(
    ("said", "command", "reason", "code", "more"),
    [
        (ENVELOPE + b"RCPT TO:<nobody@example.org>\r\n", "RCPT", "unknown-recipient", "550",
         {"from": "sender@example.com", "to": ["nobody@example.org"]}),
        (ENVELOPE + b"RCPT TO:<x@elsewhere.example>\r\n", "RCPT", "relay-denied", "550",
         {"from": "sender@example.com", "to": ["x@elsewhere.example"]}),
        (HELLO + b"MAIL FROM:<a b>\r\n", "MAIL", "syntax", "501", {"from": None}),
        (HELLO + RCPT, "RCPT", "sequence", "503", {"from": None, "to": ["alice@example.org"]}),
        (HELLO + b"MAIL FROM:<> SIZE=999999999\r\n", "MAIL", "too-large", "552", {"from": ""}),
        (HELLO + b"MAIL FROM:<a@b.test> SIZE=999999999\r\n", "MAIL", "too-large", "552",
         {"from": "a@b.test"}),
        (HELLO + b"MAIL FROM:<a@b.test> NO=1\r\n", "MAIL", "syntax", "555", {"from": "a@b.test"}),
        ("MAIL FROM:<jürgen@b.test>\r\n".encode(), "MAIL", "sequence", "503",
         {"from": "jürgen@b.test"}),
        (ENVELOPE + b"MAIL FROM:<a@b.test>\r\n", "MAIL", "sequence", "503",
         {"from": "a@b.test", "to": []}),
        (ENVELOPE + b"RCPT TO:<alice@example.org> X=<y>\r\n", "RCPT", "syntax", "555",
         {"from": "sender@example.com", "to": ["alice@example.org"]}),
        (HELLO + MAIL + b"DATA\r\n", "DATA", "other", "554", {"from": "sender@example.com"}),
        (ENVELOPE + b"DATA\r\na\nb\r\n.\r\n", "DATA", "bare-line-break", "550",
         {"from": "sender@example.com", "to": ["alice@example.org"]}),
        (ENVELOPE + b"BDAT 3 LAST\r\na\nb", "BDAT", "bare-line-break", "550",
         {"from": "sender@example.com", "to": ["alice@example.org"]}),
        (ENVELOPE + b"DATA\r\n" + b"Received: x\r\n" * 12 + b"\r\n.\r\n", "DATA", "loop", "554",
         {"from": "sender@example.com", "to": ["alice@example.org"]}),
        (HELLO + b"STARTTLS\r\n", "STARTTLS", "syntax", "502", {}),
        (HELLO + b"ETRN x\r\n", "ETRN", "syntax", "502", {}),
        (b"GET / HTTP/1.1\r\n", "GET", "http", "421", {"helo": ""}),
        (b"BDAT\r\n", "BDAT", "syntax", "501", {}),
        (b"NOOP " + b"x" * 600 + b"\r\n", "UNKNOWN", "syntax", "500", {"protocol": "SMTP"}),
        (HELLO + b"NO\0OP\r\n", "UNKNOWN", "syntax", "500", {}),
    ],
)  # fmt: skip
def test_rejection_is_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    said: bytes,
    command: str,
    reason: str,
    code: str,
    more: dict[str, Any],
) -> None:
    with serve(tmp_path, max_received=10) as served:
        with served.connect() as client:
            port = client.getsockname()[1]
            client.sendall(said + b"QUIT\r\n")
            read_all(client)
        counts = served.handler.counts
    (record,) = events(caplog, "rejected")
    assert (record["command"], record["reason"]) == (command, reason)
    assert (record["listener"], record["peer"], record["port"]) == ("test", "127.0.0.1", port)
    assert record["reply"].startswith(f"{code} ")
    for name, value in more.items():
        assert record[name] == value
    head = f"test: NOQUEUE: reject: {command} from [127.0.0.1]:{port}: {code} "
    assert record["message"].startswith(head)
    assert counts.rejections == {("4xx" if code[0] == "4" else "5xx", reason): 1}


def test_line_of_a_rejected_recipient(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The format is Postfix's."""
    plain.say(ENVELOPE + b"RCPT TO:<nobody@example.org>\r\nQUIT\r\n")
    (record,) = events(caplog, "rejected")
    line = record["message"].partition(": 550 ")[2]
    assert line == (
        "5.1.1 No such mailbox here; from=<sender@example.com> to=<nobody@example.org> "
        "proto=ESMTP helo=<client.example.com>"
    )


def test_accepted_commands_are_not_logged(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    plain.say(ENVELOPE + b"NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\nQUIT\r\n")
    assert events(caplog, "rejected") == []


def test_too_many_recipients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, max_recipients=2) as served:
        assert codes(served.say(ENVELOPE + RCPT + RCPT + b"QUIT\r\n"))[-2:] == [452, 221]
        assert served.handler.counts.rejections == {("4xx", "too-many-recipients"): 1}
    (record,) = events(caplog, "rejected")
    assert (record["command"], record["to"]) == ("RCPT", ["alice@example.org"])


def test_too_many_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reply that was sent is the one that is logged."""
    with serve(tmp_path, max_errors=2) as served:
        assert codes(served.say(b"X\r\n" * 5)) == [500, 500, 421]
    assert [one["reason"] for one in events(caplog, "rejected")] == [
        "syntax",
        "syntax",
        "too-many-errors",
    ]


def test_message_that_cannot_be_stored(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    inbox = plain.directory / "mail" / "alice@example.org"
    inbox.parent.mkdir(exist_ok=True)
    inbox.write_text("no directory")
    plain.say(ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    (record,) = events(caplog, "rejected")
    assert (record["reason"], record["to"]) == ("local-error", ["alice@example.org"])
    assert plain.handler.counts.messages == {"deferred": 1}


def test_lmtp_rejections_name_their_recipients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(tmp_path, lmtp=True) as served:
        (tmp_path / "mail").mkdir(exist_ok=True)
        (tmp_path / "mail" / "bob@example.org").write_text("no directory")
        said = served.say(
            b"LHLO c\r\n" + MAIL + RCPT + b"RCPT TO:<bob@example.org>\r\n"
            b"RCPT TO:<x@example.org>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
        )
        assert codes(said) == [250, 250, 250, 250, 550, 354, 250, 451, 221]
        counts = served.handler.counts
    unknown, failed = events(caplog, "rejected")
    assert (unknown["to"], failed["to"]) == (["x@example.org"], ["bob@example.org"])
    assert {unknown["protocol"], failed["protocol"]} == {"LMTP"}
    assert counts.messages == {"accepted": 1}
    (delivered,) = events(caplog, "message-delivered")
    assert delivered["to"] == ["alice@example.org"]
    (lost,) = events(caplog, "message-not-delivered")
    assert lost["to"] == "bob@example.org"


def test_lmtp_counts_each_reply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, lmtp=True) as served:
        bob = b"RCPT TO:<bob@example.org>\r\n"
        said = served.say(b"LHLO c\r\n" + MAIL + RCPT + bob + b"DATA\r\na\nb\r\n.\r\nQUIT\r\n")
        assert codes(said) == [250, 250, 250, 250, 354, 550, 550, 221]
        assert served.handler.counts.rejections == {("5xx", "bare-line-break"): 2}
    (record,) = events(caplog, "rejected")
    assert record["to"] == ["alice@example.org", "bob@example.org"]
    (end,) = events(caplog, "session-ended")
    assert end["rejected"] == 2


# --- logins and TLS ---------------------------------------------------------------------------


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Served]:
    pytest.importorskip("argon2")
    from fastlisten.mail.accounts import passwords

    accounts = f'[account."alice@example.org"]\npassword = "{passwords.hash_password(PASSWORD)}"\n'
    with serve(tmp_path, accounts=accounts, tls="starttls", role="submission") as served:
        yield served


def test_auth_required_and_auth_failed(
    submission: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with submission.secured() as client:
        client.sendall(HELLO + MAIL)
        read_until(client, b"required\r\n")
        client.sendall(b"AUTH PLAIN " + base64.b64encode(b"\0alice@example.org\0wrong") + b"\r\n")
        read_until(client, b"invalid\r\n")
        client.sendall(b"QUIT\r\n")
        read_until(client, b"Goodbye\r\n")
    first, second = events(caplog, "rejected")
    assert (first["command"], first["reason"]) == ("MAIL", "authentication-required")
    assert first["from"] == "sender@example.com"
    assert (second["command"], second["reason"]) == ("AUTH", "login-failed")
    assert first["tls"] == second["tls"] == "TLSv1.3"
    (failed,) = events(caplog, "login-failed")
    assert (failed["listener"], failed["user"]) == ("test", "alice@example.org")
    assert failed["session"] == second["session"]
    assert submission.handler.counts.logins == {"failed": 1}


def test_passwords_are_never_logged(submission: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Not even if the client sends it at the wrong moment, as a command."""
    with submission.secured() as client:
        client.sendall(HELLO)
        read_until(client, b"250 HELP\r\n")
        for line in (
            b"AUTH CRAM-MD5 " + SECRET,
            SECRET,
            b"AUTH PLAIN",
            SECRET[:-3],
            SECRET,
            b"AUTH PLAIN " + SECRET[:-3],
            b"PLAIN " + SECRET,
            f"MAIL FROM:<{PASSWORD}>".encode(),
            b"AUTH PLAIN " + SECRET + b" " + SECRET,
        ):
            client.sendall(line + b"\r\n")
            read_until(client, b"\r\n")
        client.sendall(b"AUTH PLAIN " + SECRET + b"\r\n")
        assert read_until(client, b"\r\n").startswith(b"235 ")
    until(lambda: events(caplog, "session-ended"), "the end")
    assert len(events(caplog, "rejected")) == 8
    everything = caplog.text + repr([vars(one) for one in caplog.records])
    for secret in (SECRET.decode(), SECRET[:-3].decode(), PASSWORD):
        assert secret not in everything


def test_failed_tls_handshake(submission: Served, caplog: pytest.LogCaptureFixture) -> None:
    with submission.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"250 HELP\r\n")
        client.sendall(b"STARTTLS\r\n")
        read_until(client, b"\r\n")
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with_error = client.recv(100)
    assert not with_error.startswith(b"5")
    until(lambda: events(caplog, "session-ended"), "the end")
    (record,) = events(caplog, "tls-failed")
    assert record["error"]
    assert record["listener"] == "test"
    assert events(caplog, "session-ended")[0]["reason"] == "tls-failed"


def test_plaintext_after_starttls(submission: Served, caplog: pytest.LogCaptureFixture) -> None:
    submission.say(HELLO + b"STARTTLS\r\nRSET\r\n")
    (record,) = events(caplog, "rejected")
    assert (record["command"], record["reason"]) == ("STARTTLS", "early-talker")


# --- handlers written for aiosmtpd ------------------------------------------------------------


class Choosy:
    """Rejects recipients, one of them by raising."""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address.startswith("fault"):
            raise ValueError("ours")
        return "550 5.1.1 not this one"


def test_rejections_by_aiosmtpd_hooks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = HELLO + MAIL + RCPT + b"RCPT TO:<fault@example.org>\r\nX\r\nQUIT\r\n"

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(said)
            return read_all(client)

    async def main() -> None:
        async with testing.serve(
            SmtpHandler,
            data_directory=str(tmp_path),
            options={"aiosmtpd-handler": f"{__name__}:Choosy"},
        ) as at:
            await asyncio.to_thread(talk, at.port)

    asyncio.run(main())
    told = [(one["command"], one["to"], one["reply"][:9]) for one in events(caplog, "rejected")]
    assert told == [
        ("RCPT", ["alice@example.org"], "550 5.1.1"),
        ("RCPT", ["fault@example.org"], "500 Error"),
        ("UNKNOWN", [], "500 5.5.1"),
    ]
    assert {one["listener"] for one in events(caplog, "rejected")} == {"test"}
    (end,) = events(caplog, "session-ended")
    assert (end["reason"], end["rejected"]) == ("quit", 3)
