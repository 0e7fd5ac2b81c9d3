"""AUTH on a connection: credentials, replies, logging, and the roles that require it."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.relay import AUTH, client_of, plain, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import HELLO, HOSTNAME, MAIL, RCPT, Served, codes, serve
from support.waiting import until

from fastlisten.cli import serve as serve_command
from fastlisten.config import default_config, loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.logins.logins import LoginsBusyError
from fastlisten.runtime.handler_factory import make_handler

OWN_MAIL = b"MAIL FROM:<alice@example.org>\r\n"
WRONG = plain("alice@example.org", "wrong")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, None) as server:
        yield server


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, None, role="submission") as server:
        yield server


@pytest.mark.parametrize("name", ["alice@example.org", "al@example.org"])
def test_auth_plain(served: Served, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.INFO, "fastlisten.smtp")
    with client_of(served, auth=plain(name, "wonder")) as client:
        assert served.protocol()._user.user_name == "alice@example.org"
        assert client.say(AUTH).startswith(b"503 5.5.1 ")
        client.say(MAIL)
        client.say(RCPT)
        client.say(b"DATA")
        assert client.say(b".").startswith(b"250 ")
    (stored,) = served.delivered()
    assert b" with ESMTPSA id " in stored
    assert ": logged in as alice@example.org" in caplog.text
    assert re.search(
        r"at \[127\.0\.0\.1\]:\d+ as alice@example\.org to alice@example\.org: ", caplog.text
    )
    assert "wonder" not in caplog.text


def test_auth_login(served: Served) -> None:
    with client_of(served, auth=b"") as client:
        assert client.say(b"AUTH LOGIN") == b"334 VXNlcm5hbWU6\r\n"
        assert client.say(base64.b64encode(b"bob@example.org")) == b"334 UGFzc3dvcmQ6\r\n"
        assert client.say(base64.b64encode(b"builder")).startswith(b"235 2.7.0 ")
        assert served.protocol()._user.user_name == "bob@example.org"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice@example.org", "wrong"),
        ("nobody@example.org", "wonder"),
        ("postmaster", "wonder"),
        ("alice", "wonder"),
    ],
)
def test_wrong_credentials(served: Served, name: str, password: str) -> None:
    with client_of(served, auth=b"") as client:
        assert (
            client.say(plain(name, password)) == b"535 5.7.8 Authentication credentials invalid\r\n"
        )
        assert not served.protocol().engine.authenticated
        assert client.say(AUTH).startswith(b"235 ")


def test_cancelled_dialogue_leaves_no_state(served: Served) -> None:
    with client_of(served, auth=b"") as client:
        assert client.say(b"AUTH LOGIN").startswith(b"334 ")
        assert client.say(b"*").startswith(b"501 ")
        assert served.protocol()._user._auth is None
        assert client.say(b"AUTH PLAIN !!!").startswith(b"501 ")
        assert client.say(b"AUTH PLAIN").startswith(b"334 ")
        assert client.say(base64.b64encode(b"eve\0alice@example.org\0wonder")).startswith(b"535 ")
        assert client.say(AUTH).startswith(b"235 ")


def test_submission_requires_auth_before_mail(submission: Served) -> None:
    with client_of(submission, auth=b"") as client:
        assert client.say(MAIL).startswith(b"530 5.7.0 ")
        assert client.say(RCPT).startswith(b"530 5.7.0 ")
        assert client.say(WRONG).startswith(b"535 ")
        assert client.say(MAIL).startswith(b"530 5.7.0 ")
        assert client.say(AUTH).startswith(b"235 ")
        assert client.say(OWN_MAIL).startswith(b"250 ")


def test_pipelined_commands_wait_for_auth(submission: Served) -> None:
    with submission.connect() as client:
        client.sendall(HELLO + AUTH + OWN_MAIL + RCPT + b"DATA\r\n.\r\nQUIT\r\n")
        replies = b""
        while piece := client.recv(65536):
            replies += piece
    assert codes(replies) == [250, 235, 250, 250, 354, 250, 221]


def test_auth_without_tls_is_refused(tmp_path: Path) -> None:
    with serve(tmp_path, tls="starttls") as served, served.connect() as connection:
        client = SmtpClient(connection)
        assert b"AUTH" not in client.say(HELLO)
        assert client.say(AUTH).startswith(b"538 5.7.11 ")
        client.close()


def test_auth_is_offered_after_starttls(tmp_path: Path) -> None:
    with serving(tmp_path, None, tls="starttls") as served, served.secured() as connection:
        client = SmtpClient(connection)
        assert b"250-AUTH PLAIN LOGIN\r\n" in client.say(HELLO)
        assert client.say(AUTH).startswith(b"235 ")
        client.close()


class Gate:
    """Logins that wait for ever, or fail."""

    available = True

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.failure: Exception | None = None

    async def check(
        self, name: str, password: str, address: str, listener: str, session: str, port: int
    ) -> Account | None:
        import asyncio

        self.asked += 1
        if self.failure is not None:
            raise self.failure
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return None


@pytest.fixture
def gate(served: Served, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(
        served.handler.office, "logins", _GatedLogins(gate, served.handler.office.logins)
    )
    return gate


class _GatedLogins:
    """Logins with the gate's check."""

    def __init__(self, gate: Gate, logins: Any) -> None:
        self.check = gate.check
        self._logins = logins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logins, name)


def test_client_disconnecting_cancels_the_check(served: Served, gate: Gate) -> None:
    with client_of(served, auth=b"") as client:
        client.sock.sendall(AUTH)
        until(lambda: gate.asked == 1)
        protocol = served.protocol()
        assert protocol.working
        assert not protocol.busy
    until(lambda: gate.cancelled == 1)
    assert served.protocols == []


def test_logins_busy(served: Served, gate: Gate) -> None:
    gate.failure = LoginsBusyError("many")
    with client_of(served, auth=b"") as client:
        assert client.say(AUTH).startswith(b"454 4.7.0 ")
        assert client.say(MAIL).startswith(b"250 ")


def test_internal_error_gets_451(
    served: Served, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.failure = ZeroDivisionError("oops")
    with client_of(served, auth=b"") as client:
        assert client.say(AUTH).startswith(b"451 4.3.0 ")
        assert client.say(MAIL).startswith(b"250 ")
    assert "ZeroDivisionError: oops" in caplog.text


# --- roles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "role", "expected"),
    [
        (25, None, "mx"),
        (2525, None, "mx"),
        (0, None, "mx"),
        (587, None, "submission"),
        (465, None, "submission"),
        (2587, None, "submission"),
        (2465, None, "submission"),
        (587, "mx", "mx"),
        (25, "submission", "submission"),
    ],
)
def test_role_by_port_and_option(port: int, role: str | None, expected: str) -> None:
    handler = SmtpHandler(HandlerSettings("x", "smtp", HOSTNAME, port=port, options={"role": role}))
    assert handler.role == expected
    assert handler.limits.auth_required == (expected == "submission")


def test_submission_needs_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "available", lambda: False)
    config = loads(
        '[server.listener.a]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\nsmtp.role = "submission"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        make_handler(config, config.listeners[0])
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (4, "server.listener.a.smtp.role")
    assert 'pip install "fastlisten[auth]"' in problem.message
    # The default configuration leaves these listeners out, and says why.
    able, lines = serve_command._what_can_be_served(default_config())
    ids = {listener.id for listener in able.listeners}
    assert {"submission", "submissions", "imap", "imaps"}.isdisjoint(ids)
    assert "smtp" in ids
    assert sum('pip install "fastlisten[auth]"' in line for line in lines) == 4
    mx = SmtpHandler(HandlerSettings("x", "smtp", HOSTNAME))
    assert mx.limits.mechanisms == ()
