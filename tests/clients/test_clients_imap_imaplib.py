"""imaplib against `fastlisten serve`: both ways to TLS and to log in, and a day's work.

Rules of this file: what each command answers in detail is tested in tests/imap.
"""

from __future__ import annotations

import contextlib
import imaplib
from collections.abc import Iterator
from typing import Any

import pytest
from support.certificates import authority
from support.imap_sync import ImapSide, filled, message
from support.real_server import ALICE, HOST, PASSWORDS, Mail, serving
from support.waiting import PATIENCE

#: Characters that modified UTF-7 (RFC 3501 5.1.3) has to encode, or quote.
MAILBOX = "Entw&APw-rfe &- Reste"


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with serving(tmp_path_factory.mktemp("mail"), "imap", "imaps") as server:
        yield server


@contextlib.contextmanager
def connected(mail: Mail, listener: str) -> Iterator[imaplib.IMAP4]:
    context = authority().client_context()
    client: imaplib.IMAP4
    if listener == "imaps":
        client = imaplib.IMAP4_SSL(HOST, mail.port(listener), ssl_context=context, timeout=PATIENCE)
    else:
        client = imaplib.IMAP4(HOST, mail.port(listener), timeout=PATIENCE)
    with client:
        if listener == "imap":
            assert "LOGINDISABLED" in client.capabilities
            with pytest.raises(imaplib.IMAP4.error):
                client.login(ALICE, PASSWORDS[ALICE])
            assert client.starttls(context)[0] == "OK"
        yield client


@pytest.mark.parametrize("listener", ["imap", "imaps"])
def test_logins(mail: Mail, listener: str) -> None:
    with connected(mail, listener) as client:
        assert client.login(ALICE, PASSWORDS[ALICE])[0] == "OK"
        assert client.state == "AUTH"
    with connected(mail, listener) as client:
        response = f"\0{ALICE}\0{PASSWORDS[ALICE]}".encode()
        assert client.authenticate("PLAIN", lambda _: response)[0] == "OK"
        assert client.logout()[0] == "BYE"
    with connected(mail, listener) as client:
        words = iter((ALICE.encode(), PASSWORDS[ALICE].encode()))
        assert client.authenticate("LOGIN", lambda _: next(words))[0] == "OK"
    with connected(mail, listener) as client, pytest.raises(imaplib.IMAP4.error):
        client.login(ALICE, "wrong")


def test_work(mail: Mail) -> None:
    with connected(mail, "imaps") as client:
        client.login(ALICE, PASSWORDS[ALICE])
        side = ImapSide(client)
        quoted = f'"{MAILBOX}"'
        known = filled(side, quoted, "mail", 6)
        assert side.read(quoted) == known
        client.select(quoted)
        assert client.search(None, "SUBJECT", "mail-3") == ("OK", [b"4"])
        client.literal = "Grüße".encode()  # type: ignore[assignment]
        assert client.search("UTF-8", "TEXT")[1] == [b"2 3 5 6"]
        answer: Any = client.fetch("2", "(BODY.PEEK[TEXT] RFC822.SIZE)")[1]
        assert answer[0][1] == message("mail-1", 1).partition(b"\r\n\r\n")[2]
        assert client.copy("1:2", "INBOX")[0] == "OK"
        side.remove(quoted, ["mail-0"])
        assert set(side.read(quoted)) == set(known) - {"mail-0"}
        assert client.rename(quoted, "Other")[0] == "OK"
        assert client.delete("Other")[0] == "OK"
        assert set(side.read("INBOX")) == {"mail-0", "mail-1"}
