"""APPEND and MULTIAPPEND: all messages of a command come in, or none (RFC 3501 6.3.11, 3502, 4315).

Rules of this file: what ends up in the mailbox, and what is left behind, by looking at the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap
from support.waiting import until

from fastlisten.mail.store.interface import StoreFullError
from fastlisten.mail.store.maildir_streams import MaildirAppend


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        yield served


@pytest.fixture
def client(server: ImapServer) -> Iterator[Lines]:
    client = server.lines("INBOX")
    yield client
    client.close()


def literal(message: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(message), message)


def nothing_is_left(server: ImapServer) -> None:
    until(lambda: not list((server.root / "tmp").iterdir()), "tmp/ to be empty")


def test_append(client: Lines) -> None:
    *untagged, tagged = client.say(
        b'APPEND INBOX (\\Seen $Key) " 3-Feb-2026 10:20:30 +0100" ' + literal(MESSAGE)
    )
    assert untagged == [b"* 1 EXISTS", b"* 1 RECENT"]
    assert re.fullmatch(rb"OK \[APPENDUID [0-9]+ 1\] Append completed\.", tagged)
    (answer,) = client.ok("FETCH 1 (FLAGS INTERNALDATE BODY.PEEK[])")[-1:]
    assert b"FLAGS (\\Seen $Key" in answer
    assert b'INTERNALDATE " 3-Feb-2026 09:20:30 +0000"' in answer
    assert MESSAGE in answer


def test_synchronizing_literal(client: Lines) -> None:
    client.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
    assert client.response().startswith(b"+ ")
    client.send(MESSAGE + b"\r\n")
    assert client.answers(b"a")[-1].startswith(b"OK [APPENDUID ")


def test_many_messages_at_once(client: Lines) -> None:
    command = b"APPEND INBOX" + b"".join(b" (\\Flagged) " + literal(MESSAGE) for _ in range(3))
    *untagged, tagged = client.say(command)
    assert untagged[0] == b"* 3 EXISTS"
    assert re.match(rb"OK \[APPENDUID [0-9]+ 1:3\] ", tagged)


def test_long_message_in_pieces(server: ImapServer, client: Lines) -> None:
    message = b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 100_000
    client.send(b"a APPEND INBOX " + literal(message) + b"\r\nb UID FETCH 1 RFC822.SIZE\r\n")
    assert client.answers(b"a")[-1].startswith(b"OK [APPENDUID ")
    assert client.answers(b"b")[0] == b"* 1 FETCH (UID 1 RFC822.SIZE %d)" % len(message)
    assert client.ok("FETCH 1 BODY.PEEK[]")[0].endswith(message + b")")
    nothing_is_left(server)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"APPEND Nowhere " + literal(MESSAGE), b"NO [TRYCREATE] "),
        (b"APPEND INBOX " + literal(MESSAGE) + b" (\\Seen) nonsense", b"BAD "),
        (b"APPEND INBOX " + literal(MESSAGE) + b" {0+}\r\n", b"NO "),
        (b"APPEND INBOX " + literal(MESSAGE) + b" {99999999}", b"NO [TOOBIG] "),
    ],
)
def test_all_or_none(server: ImapServer, client: Lines, command: bytes, answer: bytes) -> None:
    assert client.say(command)[-1].startswith(answer)
    assert client.ok("NOOP") == []
    nothing_is_left(server)
    assert client.say(b"APPEND INBOX " + literal(MESSAGE))[-1].startswith(b"OK ")


def test_dates(client: Lines) -> None:
    for date in (b"01-Jan-0001 00:00:00 +1400", b"31-Dec-9999 23:59:59 -1400"):
        assert client.say(b'APPEND INBOX "%b" ' % date + literal(MESSAGE))[-1].startswith(b"OK ")
    assert len(client.ok("FETCH 1:2 (INTERNALDATE BODY.PEEK[])")) == 2
    assert client.ok("SEARCH BEFORE 1-Jan-1970") == [b"* SEARCH 1"]


@pytest.mark.parametrize("method", ["begin", "add", "commit"])
def test_full_disk(
    server: ImapServer, client: Lines, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def fail(*arguments: object) -> None:
        raise StoreFullError("No space left")

    command = b"APPEND INBOX " + literal(MESSAGE) + b" " + literal(MESSAGE)
    with monkeypatch.context() as patch:
        patch.setattr(MaildirAppend, method, fail)
        assert client.say(command)[-1].startswith(b"NO [OVERQUOTA] No space left")
    assert client.ok("NOOP") == []
    nothing_is_left(server)
    assert client.say(command)[-1].startswith(b"OK ")


def test_client_that_goes_away(server: ImapServer, client: Lines) -> None:
    # More than is kept in memory.
    client.send(b"a APPEND INBOX {200000+}\r\n" + b"Subject: x\r\n" * 10_000)
    until(lambda: list((server.root / "tmp").iterdir()), "a file in tmp/")
    client.close()
    nothing_is_left(server)
    assert server.lines("INBOX").ok("SEARCH ALL") == [b"* SEARCH"]
