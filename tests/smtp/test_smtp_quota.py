"""Full mailboxes: what smtp and lmtp say, at RCPT and after the message, and to whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import HELLO, MAIL, RCPT, Served, codes, serve

from fastlisten.mail.maildir.maildir import Maildir

BOB = b"RCPT TO:<bob@example.org>\r\n"
DATA = b"DATA\r\nSubject: x\r\n\r\ntext\r\n.\r\n"
LARGE = b"DATA\r\nSubject: x\r\n\r\n" + b"text\r\n" * 3000 + b".\r\n"

ACCOUNTS = """
[account."alice@example.org"]
quota = { messages = 2, bytes = "10KiB" }
[account."bob@example.org"]
"""

FULL = b"452 4.2.2 Mailbox is full; try again later\r\n"
EXCEEDED = b"452 4.2.2 Quota exceeded (mailbox for user is full)\r\n"
NEVER = b"552 5.2.2 Quota exceeded (message is larger than the mailbox may be)\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, accounts=ACCOUNTS) as server:
        yield server


@pytest.fixture
def lmtp(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, accounts=ACCOUNTS, lmtp=True) as server:
        yield server


def count(served: Served, name: str = "alice") -> int:
    return len(Maildir(str(served.directory / "mail" / f"{name}@example.org")).messages())


def test_full_mailbox_is_refused_at_rcpt(served: Served) -> None:
    message = MAIL + RCPT + DATA
    assert codes(served.say(HELLO + message * 2)) == [250] + [250, 250, 354, 250] * 2
    said = served.say(HELLO + MAIL + RCPT + BOB + RCPT + DATA)
    assert codes(said) == [250, 250, 452, 250, 452, 354, 250]
    assert said.count(FULL) == 2
    assert (count(served), count(served, "bob")) == (2, 1)


def test_room_again_after_messages_are_removed(served: Served) -> None:
    message = MAIL + RCPT + DATA
    assert codes(served.say(HELLO + message * 2))[-1] == 250
    box = Maildir(str(served.directory / "mail" / "alice@example.org"))
    box.remove(box.messages()[0])
    for _ in range(200):  # it is gone once its directory has been unchanged for a while
        said = served.say(HELLO + MAIL + RCPT)
        if FULL not in said:
            break
    assert codes(said) == [250, 250, 250]


def test_declared_size(served: Served) -> None:
    small = MAIL.replace(b">\r\n", b"> SIZE=10000\r\n")
    large = MAIL.replace(b">\r\n", b"> SIZE=10241\r\n")
    said = served.say(HELLO + large + RCPT + BOB)
    assert codes(said) == [250, 250, 552, 250]
    assert NEVER in said
    assert codes(served.say(HELLO + small + RCPT)) == [250, 250, 250]
    assert codes(served.say(HELLO + MAIL + RCPT + DATA))[-1] == 250
    assert FULL in served.say(HELLO + MAIL.replace(b">\r\n", b"> SIZE=10240\r\n") + RCPT)


def test_message_that_does_not_fit_is_for_nobody(served: Served) -> None:
    said = served.say(HELLO + MAIL + BOB + RCPT + LARGE)
    assert codes(said) == [250, 250, 250, 250, 354, 552]
    assert said.endswith(NEVER)
    assert (count(served), count(served, "bob")) == (0, 0)
    assert served.left_over() == []


def test_full_since_rcpt(served: Served) -> None:
    with served.connect() as client:
        client.sendall(HELLO + MAIL + RCPT)
        stream = client.makefile("rb")
        assert b"250 2.1.5 Ok\r\n" in iter(stream.readline, b"")
        assert codes(served.say(HELLO + (MAIL + RCPT + DATA) * 2))[-1] == 250
        client.sendall(DATA)
        assert stream.readline().startswith(b"354 ")
        assert stream.readline() == EXCEEDED
        stream.close()
    assert count(served) == 2


def test_lmtp_answers_for_each_recipient(lmtp: Served) -> None:
    hello = b"LHLO c\r\n"
    said = lmtp.say(hello + MAIL + RCPT + BOB + RCPT + LARGE)
    assert codes(said) == [250, 250, 250, 250, 250, 354, 552, 250, 552]
    assert said.count(NEVER) == 2
    assert codes(lmtp.say(hello + (MAIL + RCPT + DATA) * 2))[-1] == 250
    said = lmtp.say(hello + MAIL + RCPT + BOB + DATA)
    assert codes(said) == [250, 250, 452, 250, 354, 250]
    assert FULL in said
    assert (count(lmtp), count(lmtp, "bob")) == (2, 2)


def test_with_a_relay(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        office = served.handler.office
        office.quota = office.quota._replace(messages=1)
        for taken in (True, False):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
            answer = client.say(rcpt("alice@example.org"))
            assert answer.startswith(b"250 ") if taken else answer == FULL
            client.say(b"DATA")
            assert client.say(b"Subject: x\r\n\r\n.\r\n").startswith(b"250 ")
        assert len(relay.messages) == 2
        assert count(served) == 1
