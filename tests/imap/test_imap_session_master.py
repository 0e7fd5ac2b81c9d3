"""Master logins: user*master, and PLAIN with an authorization identity (RFC 4616, Dovecot's form).

Rules of this file: admin is a master of all, helper of some, alice of nobody.
"""

from __future__ import annotations

import base64
import imaplib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.imap_server import ADDRESS, PASSWORD, ImapServer, serve_imap
from support.waiting import until

from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts.roster import Roster
from fastlisten.mail.logins.penalties import Penalties

FAILED = b"NO [AUTHENTICATIONFAILED] Authentication failed."
REFUSED = b"NO [AUTHORIZATIONFAILED] Authorization identity must be empty or match the user name"

MASTERS = f"""
[account."admin@example.org"]
password = "{cheap_hash("root")}"
master = true
[account."helper@example.org"]
password = "{cheap_hash("help")}"
master = ["@example.com", "bob@example.org"]
[account."bob@example.org"]
[account."carol@example.com"]
[account."star*admin@example.org"]
password = "{cheap_hash("own")}"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path, accounts=MASTERS) as served:
        yield served


def plain(user: str, name: str, password: str) -> str:
    octets = f"{user}\0{name}\0{password}".encode()
    return "AUTHENTICATE PLAIN " + base64.b64encode(octets).decode()


def answer(server: ImapServer, command: str) -> bytes:
    assert server.handler is not None
    server.handler.logins.penalties = Penalties()  # nobody waits for failures before
    client = server.connect()
    said = client.say(command)[-1]
    client.close()
    return said.partition(b"[CAPABILITY")[0] if said.startswith(b"OK") else said


@pytest.mark.parametrize(
    "command",
    [
        f"LOGIN {ADDRESS}*admin@example.org root",
        plain(ADDRESS, "admin@example.org", "root"),
        plain("", f"{ADDRESS}*admin@example.org", "root"),
        plain("alice@EXAMPLE.org", "ADMIN@example.org", "root"),
    ],
)
def test_master_sees_the_mail_of_the_user(
    server: ImapServer, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    server.deliver()
    client = server.connect()
    with caplog.at_level(logging.INFO):
        client.ok(command)
    assert b"* 1 EXISTS" in client.ok("SELECT INBOX")
    (record,) = [one for one in caplog.records if "logged in as" in one.getMessage()]
    assert record.getMessage().endswith(f"logged in as {ADDRESS}*admin@example.org")
    fields = vars(record).get("fields", vars(record))
    assert (fields["user"], fields["master"]) == (ADDRESS, "admin@example.org")


@pytest.mark.parametrize(
    ("user", "name", "password", "expected"),
    [
        ("bob@example.org", "helper@example.org", "help", b"OK "),
        ("carol@example.com", "helper@example.org", "help", b"OK "),
        (ADDRESS, "helper@example.org", "help", FAILED),
        ("helper@example.org", "helper@example.org", "help", b"OK "),
        ("bob@example.org", "admin@example.org", "root", b"OK "),  # without a password of his own
        ("bob@example.org", "admin@example.org", PASSWORD, FAILED),
        (ADDRESS, "admin@example.org", PASSWORD, FAILED),
        ("bob@example.org", ADDRESS, PASSWORD, FAILED),
        ("nobody@example.org", "admin@example.org", "root", FAILED),
        ("", "star*admin@example.org", "own", b"OK "),
        ("", "*admin@example.org", "root", FAILED),
        ("", f"{ADDRESS}*", PASSWORD, FAILED),
        ("", "bob@example.org*alice@example.org*admin@example.org", "root", FAILED),
    ],
)
def test_who_may_open_what(
    server: ImapServer, user: str, name: str, password: str, expected: bytes
) -> None:
    for _ in range(2):  # the second time, the password is known to be right
        assert answer(server, plain(user, name, password)) == expected
        if user:
            assert answer(server, f'LOGIN "{user}*{name}" {password}') == expected


def test_imaplib_as_imapsync_and_others_log_in(server: ImapServer) -> None:
    server.deliver()
    with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=server.context) as client:
        client.login(f"{ADDRESS}*admin@example.org", "root")
        assert client.select()[1] == [b"1"]


def test_nobody_is_a_master_unless_the_file_says_so(tmp_path: Path) -> None:
    with serve_imap(tmp_path, accounts=MASTERS.replace("master =", "# ")) as server:
        assert answer(server, plain("bob@example.org", "admin@example.org", "root")) == REFUSED
        assert answer(server, 'LOGIN "bob@example.org*admin@example.org" root') == FAILED


def test_session_ends_when_the_master_is_none_any_more(server: ImapServer) -> None:
    client = server.connect()
    client.ok(plain("bob@example.org", "admin@example.org", "root"))
    path = server.directory / "accounts.toml"
    write_accounts(path, path.read_text().replace("master = true", ""))
    assert server.handler is not None
    accounts = server.handler.office.accounts

    def changed() -> bool:
        roster = accounts.reload()
        return roster is not None and not roster.acting(roster.accounts[1], "bob@example.org")

    until(changed)
    client.send(b"x NOOP\r\n")
    assert client.response().startswith(b"* BYE")


@pytest.mark.parametrize("value", ['"yes"', "1", '["nobody"]', "[1]", "{}"])
def test_values_that_are_not_allowed(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Roster.parse(f'[account."a@example.org"]\nmaster = {value}\n')
    assert [problem.key for problem in caught.value.problems] == ['account."a@example.org".master']
