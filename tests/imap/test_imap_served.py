"""imap by `fastlisten serve CONFIG`: imaplib and curl read what smtp and lmtp have delivered.

Rules of this file: the program with a real file, over STARTTLS and over TLS from the first byte, in
one process and with several workers; messages are compared octet by octet.
"""

from __future__ import annotations

import contextlib
import imaplib
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import authority, rsa_key, table, write
from support.external_programs import run
from support.marks import external
from support.real_server import (
    ALICE,
    HOST,
    LISTENERS,
    MESSAGE,
    PASSWORDS,
    SENDER,
    Mail,
    accounts,
    serving,
    split,
)
from support.waiting import PATIENCE
from support.workers import Workers, stopped, workers

#: The message as it is read: a literal has no NUL (RFC 3501 9, CHAR8).
READ = MESSAGE.replace(b"\0", b"\x80")

#: curl's exit code for a denied login.
LOGIN_DENIED = 67


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    """One process that serves smtp, lmtp and imap, with a message in ALICE's inbox."""
    with serving(tmp_path_factory.mktemp("mail"), "mx", "lmtp", "imap", "imaps") as server:
        by_smtp(server)
        yield server


def by_smtp(mail: Mail) -> None:
    with smtplib.SMTP(HOST, mail.port("mx"), "client.example.com", timeout=PATIENCE) as session:
        session.ehlo()
        assert session.mail(SENDER)[0] == 250
        assert session.rcpt(ALICE)[0] == 250
        assert session.data(MESSAGE)[0] == 250


def by_lmtp(mail: Mail) -> None:
    with (
        socket.create_connection((HOST, mail.port("lmtp")), PATIENCE) as connection,
        connection.makefile("rwb") as session,
    ):
        stuffed = MESSAGE.replace(b"\r\n.", b"\r\n..")
        envelope = f"LHLO me\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\n".encode()
        session.write(envelope + stuffed + b".\r\nQUIT\r\n")
        session.flush()
        replies = [line[:4] for line in session.read().splitlines() if line[3:4] == b" "]
    assert replies == [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "]


@contextlib.contextmanager
def reader(mail: Mail, listener: str, user: str = ALICE) -> Iterator[imaplib.IMAP4]:
    """Log in over TLS, by STARTTLS or from the first byte."""
    context = authority().client_context()
    port = mail.port(listener)
    session: imaplib.IMAP4
    if listener == "imaps":
        session = imaplib.IMAP4_SSL(HOST, port, ssl_context=context, timeout=PATIENCE)
    else:
        session = imaplib.IMAP4(HOST, port, timeout=PATIENCE)
    with session:
        if listener == "imap":
            assert "LOGINDISABLED" in session.capabilities
            session.starttls(context)
            assert "LOGINDISABLED" not in session.capabilities
        session.login(user, PASSWORDS[user])
        yield session


def contents(session: imaplib.IMAP4) -> list[bytes]:
    """Return the messages in the inbox as they were sent."""
    assert session.select()[0] == "OK"
    fetched = session.fetch("1:*", "(BODY.PEEK[])")[1]
    return [split(one[1])[1] for one in fetched if isinstance(one, tuple)]


@pytest.mark.parametrize("listener", ["imap", "imaps"])
def test_imaplib_reads_what_smtp_delivered(mail: Mail, listener: str) -> None:
    with reader(mail, listener) as session:
        assert session.welcome.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
        assert b" mx.example.org " in session.welcome
        assert contents(session)[0] == READ


def test_what_smtp_and_lmtp_deliver_comes_into_an_open_mailbox(mail: Mail) -> None:
    with reader(mail, "imap") as session:
        before = len(contents(session))
        by_smtp(mail)
        by_lmtp(mail)
        session.noop()
        assert contents(session) == [READ] * (before + 2)


@external("curl")
@pytest.mark.parametrize("listener", ["imap", "imaps"])
def test_curl_reads_what_smtp_delivered(mail: Mail, listener: str) -> None:
    url = f"{listener}://{mail.at(listener)}/INBOX;MAILINDEX=1"
    command = ("curl", "--silent", "--ssl-reqd", "--cacert", mail.authority, url)
    done = run(*command, "--user", f"{ALICE}:{PASSWORDS[ALICE]}")
    assert split(done.stdout)[1] == READ
    run(*command, "--user", f"{ALICE}:wrong", expect=(LOGIN_DENIED,))


def test_two_workers(tmp_path: Path) -> None:
    """Sessions in both processes; each sees what was delivered and flagged through the other."""
    write(tmp_path, authority().sign("mx.example.org", HOST, key=rsa_key()))
    listeners = "".join(
        f'[server.listener.{name}]\nbind = "{HOST}:0"\n{LISTENERS[name]}'
        for name in ("mx", "imaps")
    )
    with (
        workers(tmp_path, 2, table(tmp_path) + listeners, accounts=accounts()) as whole,
        contextlib.ExitStack() as sessions,
    ):
        server = Mail(whole.program, tmp_path)
        by_smtp(server)
        one, other = [sessions.enter_context(reader_of(pid, whole, server)) for pid in whole.pids]
        assert contents(one) == contents(other) == [READ]
        one.store("1", "+FLAGS", r"(\Flagged)")
        other.noop()
        assert b"\\Flagged" in other.fetch("1", "(FLAGS)")[1][0]  # type: ignore[operator]
        by_smtp(server)
        for session in (one, other):
            session.noop()
            assert contents(session) == [READ] * 2
        sessions.close()
        assert whole.end() == 0


@contextlib.contextmanager
def reader_of(pid: int, whole: Workers, server: Mail) -> Iterator[imaplib.IMAP4]:
    """Log in to one of the workers; the others are stopped meanwhile."""
    with contextlib.ExitStack() as session:
        with stopped(*(one for one in whole.pids if one != pid)):
            client = session.enter_context(reader(server, "imaps"))
        yield client
