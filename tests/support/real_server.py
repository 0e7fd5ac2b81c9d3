"""A server of every protocol for tests of real clients, and its mail.

Rules of this file: no test in it, and nothing that only one client needs. The server is
`fastlisten serve` with a real file and a certificate of the tests' authority; what counts is what
has arrived in the Maildirs, octet by octet.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import argon2
import pytest

from support.certificates import authority, rsa_key, table, write
from support.kernel import sockets
from support.program import Program, program
from support.waiting import until

HOST = "127.0.0.1"

ALICE = "alice@example.org"
BOB = "bob@example.org"
CAROL = "carol@example.org"
#: An account whose name needs SMTPUTF8.
ZOE = "zoë@example.org"

#: An alias of that account that doesn't need it.
ZOE_ALIAS = "zoe@example.org"
#: Recipients as smtp-source numbers them in every message: it puts the number before the name.
CROWD = ("user@example.org", *(f"{number}user@example.org" for number in range(2, 11)))
#: As Postfix 3.11's smtp-source numbers them: behind the name, no number twice in a run.
LONG_CROWD = tuple(f"user{number}@example.org" for number in range(200))

#: Passwords with characters that clients must quote; ZOE's is not ASCII.
PASSWORDS = {ALICE: "correct horse %+/=\"'battery", ZOE: "pässwörd"}

SENDER = "sender@example.com"

#: Lines that begin with dots, lines of dots, octets of all kinds but a bare CR or LF.
MESSAGE = (
    b"Subject: all of it\r\nFrom: sender@example.com\r\n\r\n.\r\n..\r\n...\r\n.hidden\r\n\r\n"
    + bytes(octet for octet in range(256) if octet not in b"\r\n")
    + b"\r\n\r\nthe last line\r\n.\r\n"
)
#: A message without anything that a client might refuse to send.
PLAIN = b"Subject: plain\r\nFrom: sender@example.com\r\n\r\n.\r\n..\r\n.hidden\r\n\r\nthe end\r\n"

#: The listeners that a test can ask for.
LISTENERS = {
    "mx": 'protocol = "smtp"\n',
    "submission": 'protocol = "smtp"\nsmtp.role = "submission"\n',
    "submissions": 'protocol = "smtp"\nsmtp.role = "submission"\ntls.implicit = true\n',
    "lmtp": 'protocol = "lmtp"\n',
    "imap": 'protocol = "imap"\n',
    "imaps": 'protocol = "imap"\ntls.implicit = true\n',
    "management": 'protocol = "http"\n',
    "managements": 'protocol = "http"\ntls.implicit = true\n',
    "application": 'protocol = "http"\napp = "support.http_application:app"\n',
    "applications": (
        'protocol = "http"\napp = "support.http_application:app"\ntls.implicit = true\n'
    ),
}


#: Those that also listen on a Unix socket.
ON_UNIX_SOCKETS = ("lmtp", "management")


@functools.cache
def accounts() -> str:
    """Return the accounts file, with hashes that cost little to verify."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    text = ""
    for name in (ALICE, BOB, CAROL, ZOE, *CROWD, *LONG_CROWD):
        text += f"[account.{json.dumps(name, ensure_ascii=False)}]\n"
        if name == ZOE:
            text += f'aliases = ["{ZOE_ALIAS}"]\n'
        if name in PASSWORDS:
            text += f'password = "{hasher.hash(PASSWORDS[name])}"\n'
    return text


class Mail:
    """A running server.

    Attributes:
        program: the program.
        directory: the directory of its files and the authority's certificate.
        authority: the file with the certificate that clients must trust.
    """

    def __init__(self, started: Program, directory: Path) -> None:
        self.program = started
        self.directory = directory
        self.authority = str(directory / "authority.pem")

    def port(self, listener: str) -> int:
        """Return the TCP port of a listener."""
        return self.program.port(listener)

    def at(self, listener: str) -> str:
        """Return a listener's address as HOST:PORT."""
        return f"{HOST}:{self.port(listener)}"

    def socket(self, listener: str) -> Path:
        """Return the Unix socket of a listener that has one."""
        return self.directory / f"{listener}.socket"

    def stored(self, account: str = ALICE) -> list[bytes]:
        """Return the files of an account, trace fields included."""
        return self.program.messages(account)

    def arrived(self, account: str = ALICE) -> list[bytes]:
        """Return the messages of an account as they were sent."""
        return [split(message)[1] for message in self.stored(account)]

    def the_one(self, account: str = ALICE) -> tuple[str, bytes]:
        """Return the trace fields and the content of an account's only message."""
        (message,) = self.stored(account)
        return split(message)

    def forget(self) -> None:
        """Remove all mail that has arrived."""
        for path in (self.program.directory / "data" / "mail").glob("*/new/*"):
            path.unlink()

    def everything(self) -> dict[str, int]:
        """Return the number of messages of each account that has any."""
        found: dict[str, int] = {}
        for path in (self.program.directory / "data" / "mail").glob("*/new/*"):
            found[path.parts[-3]] = found.get(path.parts[-3], 0) + 1
        return found


def split(stored: bytes) -> tuple[str, bytes]:
    """Split a file into the trace fields, which delivery added, and the message as sent.

    The trace is unfolded: one line for each of its two fields.
    """
    found = re.match(rb"Return-Path: <[^>\r]*>\r\nReceived: .*(?:\r\n[ \t].*)*\r\n", stored)
    assert found, stored[:500]
    trace = re.sub(r"\r\n[ \t]+", " ", found[0].decode())
    return trace.replace("\r\n", "\n"), stored[found.end() :]


@contextlib.contextmanager
def serving(directory: Path, *listeners: str, more: str = "") -> Iterator[Mail]:
    """Serve some of the listeners above until the end of the block; check that it ends cleanly.

    Args:
        directory: the directory for its files.
        listeners: the names of the listeners.
        more: additional tables of the configuration.
    """
    write(directory, authority().sign("mx.example.org", "localhost", HOST, key=rsa_key()))
    (directory / "authority.pem").write_bytes(authority().pem)
    (directory / "letter").write_bytes(MESSAGE)
    # Without the final line end, which swaks adds.
    (directory / "plain").write_bytes(PLAIN[:-2])
    text = table(directory)
    for name in listeners:
        bind = [f"{HOST}:0"]
        if name in ON_UNIX_SOCKETS:
            bind.append(f"unix:{directory / name}.socket")
        text += f'[server.listener."{name}"]\nbind = {json.dumps(bind)}\n{LISTENERS[name]}'
    count = len(listeners)
    with program(directory, text + more, accounts=accounts(), listeners=count) as started:
        before = sockets(started.pid)
        yield Mail(started, directory)
        # All clients have gone and left nothing behind.
        until(lambda: sockets(started.pid) == before, "the ends of connections")
        assert started.stop() == 0
        log = started.err.splitlines()
        assert [line for line in log if " ERROR " in line or "Traceback" in line] == []
        left = [*(directory / "data" / "mail").glob("*/tmp/*")]
        assert left == []


def server_fixture(*listeners: str, more: str = "") -> Callable[..., Iterator[Mail]]:
    """Return a fixture of one server per module, with these arguments of `serving`."""

    @pytest.fixture(scope="module")
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
        with serving(tmp_path_factory.mktemp("mail"), *listeners, more=more) as mail:
            yield mail

    return server


@pytest.fixture
def without_old_mail(server: Mail) -> Mail:
    """Return the module's `server` after removing all mail of earlier tests."""
    server.forget()
    return server
