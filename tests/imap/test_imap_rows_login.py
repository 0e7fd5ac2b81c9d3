"""The rows of `[imap]` about clients that have not logged in: mechanisms, attempts, commands.

Rules of this file: each row is set to a value that differs from its default, and a client notices.
"""

from __future__ import annotations

import base64
from pathlib import Path

from support.imap_server import ADDRESS, PASSWORD, Lines, serve_imap

#: Two of them are verified, fewer than those after which an address has to wait.
WRONG = [
    b"LOGIN alice@example.org wrong",
    b"AUTHENTICATE PLAIN " + base64.b64encode(b"\0alice@example.org\0wrong"),
    b"AUTHENTICATE PLAIN " + base64.b64encode(b"eve\0alice@example.org\0wonder"),
    b'LOGIN "" ""',
]


def rest(client: Lines) -> list[bytes]:
    """Return what comes up to the end."""
    return client.stream.read().splitlines()


def test_mechanisms(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"mechanisms": ("LOGIN",)}) as server:
        client = server.connect()
        assert b"AUTH=LOGIN" in client.greeting
        assert b"AUTH=PLAIN" not in client.greeting
        (answer,) = client.say(b"AUTHENTICATE PLAIN AGEAYg==")
        assert answer == b"NO Unsupported authentication mechanism"
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")


def test_login_attempts(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"login-attempts": 4}) as server:
        client = server.connect()
        for command in WRONG[:3]:
            assert client.say(command)[-1].startswith(b"NO [AUTH")
        client.send(b"x " + WRONG[3] + b"\r\ny CAPABILITY\r\n")
        last, bye = rest(client)
        assert last.startswith(b"x NO [AUTHENTICATIONFAILED] ")
        assert bye == b"* BYE [LIMIT] Too many failed logins"


def test_a_login_within_the_attempts_succeeds(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"login-attempts": 2}) as server:
        client = server.connect()
        client.say(WRONG[3])
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        client.ok("SELECT INBOX")


def test_max_commands_before_login(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"max-commands-before-login": 12}) as server:
        client = server.connect()
        for _ in range(11):
            client.ok("NOOP")
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        for _ in range(20):
            client.ok("NOOP")
        client = server.connect()
        client.send(b"x NOOP\r\n" * 20)
        assert rest(client) == [
            *[b"x OK NOOP completed."] * 12,
            b"* BYE [LIMIT] Too many commands before login",
        ]


def test_refused_commands_before_login_count(tmp_path: Path) -> None:
    options = {"max-commands-before-login": 12, "max-errors-before-login": 1000}
    with serve_imap(tmp_path, options=options) as server:
        client = server.connect()
        client.send(b"x NONSENSE\r\n" * 12 + b"x NOOP\r\n")
        assert rest(client)[-1] == b"* BYE [LIMIT] Too many commands before login"
