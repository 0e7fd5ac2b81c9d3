"""SEARCH: every key, on messages of a Maildir; ESEARCH and SEARCHRES (RFC 3501 6.4.4, 4731, 5182).

Rules of this file: results only. How keys are written is a matter of the engine's tests, how text
is decoded and compared one of mail/mime's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.imap_server import ImapServer, Lines, serve_imap

MESSAGES = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.com\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Tue, 3 Feb 2026 23:30:00 -0500\r\n\r\nplain body\r\n",
    b"From: bob@example.com\r\nCc: carol@example.net\r\nSubject: second\r\nX-Empty:\r\n"
    b"Date: Wed, 4 Feb 2026 10:00:00 +0000\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nTcOkcmNoZW4gdGVpbA==\r\n",
    b"From: dave@example.com\r\nBcc: eve@example.net\r\nSubject: third\r\n\r\n"
    + b"x" * 5000
    + b"\r\nneedle\r\n",
    b"Subject: fourth\r\n\r\n" + b"0123456789\r\n" * 10_000 + b"needle\r\n",
)
DAYS = (datetime(2026, 1, day, 12, tzinfo=UTC).timestamp() for day in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    with serve_imap(tmp_path_factory.mktemp("search")) as served:
        for message, day in zip(MESSAGES, DAYS, strict=True):
            before = set(os.listdir(served.root / "new")) if (served.root / "new").exists() else ()
            served.deliver(message)
            (name,) = set(os.listdir(served.root / "new")).difference(before)
            os.utime(served.root / "new" / name, (day, day))
        client = served.lines("INBOX")
        client.ok("STORE 1 +FLAGS.SILENT (\\Seen $Work)")
        client.ok("STORE 2 +FLAGS.SILENT (\\Flagged \\Answered)")
        client.ok("STORE 3 +FLAGS.SILENT (\\Deleted \\Draft)")
        client.close()
        yield served


@pytest.fixture
def client(server: ImapServer) -> Iterator[Lines]:
    client = server.lines("INBOX")
    yield client
    client.close()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("ALL", "1 2 3 4"), ("SEEN", "1"), ("UNSEEN", "2 3 4"), ("FLAGGED", "2"),
        ("ANSWERED", "2"), ("UNANSWERED", "1 3 4"), ("DELETED", "3"), ("UNDELETED", "1 2 4"),
        ("DRAFT", "3"), ("UNDRAFT", "1 2 4"), ("UNFLAGGED", "1 3 4"),
        ("KEYWORD $work", "1"), ("UNKEYWORD $WORK", "2 3 4"), ("KEYWORD none", ""),
        ("RECENT", ""), ("OLD", "1 2 3 4"), ("NEW", ""),
        ("2:3", "2 3"), ("*", "4"), ("7:9", ""), ("7:*", "4"),
        ("UID 1,3", "1 3"), ("UID 90:99", ""), ("UID 90:*", "4"),
        ("FROM alice", "1"), ("FROM EXAMPLE.COM", "2 3"), ("TO bob", "1"), ("CC carol", "2"),
        ("BCC eve", "3"), ("SUBJECT second", "2"), ("SUBJECT FOURTH", "4"),
        ("HEADER X-Empty \"\"", "2"), ("HEADER subject t", "3 4"), ("HEADER X-None \"\"", ""),
        ("BODY needle", "3 4"), ("BODY plain", "1"), ("BODY second", ""), ("TEXT second", "2"),
        ("TEXT needle", "3 4"), ("BODY \"\"", "1 2 3 4"), ("BODY nothing", ""),
        ("SINCE 2-Jan-2026", "2 3 4"), ("BEFORE 2-Jan-2026", "1"), ("ON 3-Jan-2026", "3"),
        ("SENTON 3-Feb-2026", "1"), ("SENTSINCE 4-Feb-2026", "2"), ("SENTBEFORE 4-Feb-2026", "1"),
        ("LARGER 5000", "3 4"), ("SMALLER 5000", "1 2"), ("OLDER 3600", "1 2 3 4"),
        ("YOUNGER 3600", ""), ("MODSEQ 1", "1 2 3 4"), ("EMAILID E0", ""), ("THREADID T1", ""),
        ("NOT 1", "2 3 4"), ("OR 1 SEEN", "1"), ("OR FROM dave SUBJECT fourth", "3 4"),
        ("UNSEEN SUBJECT t", "3 4"), ("NOT (BODY needle LARGER 6000)", "1 2 3"),
        ("(OR (FLAGGED SUBJECT second) (DELETED BODY needle)) UNSEEN", "2 3"),
        ("NOT NOT SEEN", "1"), ("1 2", ""), ("NOT BODY needle NOT FROM bob", "1"),
    ],
)  # fmt: skip
def test_keys(client: Lines, keys: str, found: str) -> None:
    answer = client.ok(f"SEARCH {keys}")[-1]
    assert answer.partition(b" (MODSEQ")[0] == f"* SEARCH {found}".strip().encode()
    assert client.ok(f"UID SEARCH {keys}")[-1] == answer  # message numbers are UIDs here


@pytest.mark.parametrize(
    ("charset", "text"), [("UTF-8", "grüße"), ("ISO-8859-1", "GRÜ"), ("cp437", "üß")]
)
def test_text_in_any_charset(client: Lines, charset: str, text: str) -> None:
    octets = text.encode(charset)
    command = b"SEARCH CHARSET %b SUBJECT {%d+}\r\n%b" % (charset.encode(), len(octets), octets)
    assert client.ok(command) == [b"* SEARCH 1"]


def test_decoded_body(client: Lines) -> None:
    text = "märchen".encode()
    command = b"SEARCH CHARSET UTF-8 BODY {%d+}\r\n%b" % (len(text), text)
    assert client.ok(command) == [b"* SEARCH 2"]
    assert client.say("SEARCH CHARSET klingon BODY x")[-1].startswith(b"NO [BADCHARSET ")


@pytest.mark.parametrize(
    ("returns", "answer"),
    [
        ("", b" ALL 2:4"),
        ("MIN", b" MIN 2"),
        ("MAX", b" MAX 4"),
        ("COUNT", b" COUNT 3"),
        ("MIN MAX COUNT ALL", b" MIN 2 MAX 4 ALL 2:4 COUNT 3"),
    ],
)
def test_esearch(client: Lines, returns: str, answer: bytes) -> None:
    (line,) = client.ok(f"SEARCH RETURN ({returns}) UNSEEN")
    assert line == b'* ESEARCH (TAG "t%d")' % client.count + answer
    (line,) = client.ok(f"UID SEARCH RETURN ({returns}) UNSEEN")
    assert line == b'* ESEARCH (TAG "t%d") UID' % client.count + answer


def test_esearch_without_a_result(client: Lines) -> None:
    (line,) = client.ok("SEARCH RETURN (MIN MAX ALL COUNT) SUBJECT none")
    assert line == b'* ESEARCH (TAG "t%d") COUNT 0' % client.count


@pytest.mark.parametrize(
    ("returns", "saved"),
    [
        ("SAVE", "2 3 4"),
        ("SAVE MIN", "2"),
        ("SAVE MAX", "4"),
        ("SAVE MIN MAX", "2 4"),
        ("SAVE MIN COUNT", "2 3 4"),
        ("SAVE ALL", "2 3 4"),
    ],
)
def test_saved_result(client: Lines, returns: str, saved: str) -> None:
    answers = client.ok(f"SEARCH RETURN ({returns}) UNSEEN")
    assert bool(answers) is (returns != "SAVE")
    assert client.ok("SEARCH $") == [f"* SEARCH {saved}".encode()]
    assert client.ok("UID SEARCH UID $") == [f"* SEARCH {saved}".encode()]
    assert len(client.ok("FETCH $ UID")) == len(saved.split())
    client.ok("SEARCH RETURN (SAVE) $ NOT 4")
    assert client.ok("SEARCH $")[0] == f"* SEARCH {saved.replace('4', '').strip()}".strip().encode()
    client.ok("SELECT INBOX")
    assert client.ok("SEARCH $") == [b"* SEARCH"]


def test_saved_result_shrinks_with_expunges(tmp_path: Path) -> None:
    with serve_imap(tmp_path) as server:
        server.deliver(*MESSAGES)
        client = server.lines("INBOX")
        client.ok("SEARCH RETURN (SAVE) 2:3")
        client.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)")
        client.ok("EXPUNGE")
        assert client.ok("FETCH $ UID") == [b"* 1 FETCH (UID 3)"]


def test_failed_search_saves_nothing(client: Lines) -> None:
    client.ok("SEARCH RETURN (SAVE) ALL")
    for command in ("SEARCH CHARSET x SUBJECT y", "SEARCH RETURN (SAVE) NONSENSE"):
        client.say(command)
        assert client.ok("SEARCH $") == [b"* SEARCH 1 2 3 4"]
    assert client.say("SEARCH RETURN (SAVE) CHARSET x SUBJECT y")[-1].startswith(b"NO ")
    assert client.ok("SEARCH $") == [b"* SEARCH"]
