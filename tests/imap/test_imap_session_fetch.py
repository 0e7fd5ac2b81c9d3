"""FETCH: every item and section of real messages, by the octets of their files (RFC 3501 6.4.5).

Rules of this file: messages are delivered as files, and what comes back is compared with them.
What a structure looks like on the wire is in test_imap_responses_structure.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap
from support.kernel import open_below
from support.waiting import until

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.imap import message_content
from fastlisten.handlers.imap.engine_protocol import EngineProtocol
from fastlisten.handlers.imap.handler import ImapHandler

INNER = (
    b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n"
    b"--in\r\nContent-Type: text/plain\r\n\r\ninner text\r\n"
    b"--in\r\nContent-Type: text/html\r\n\r\n<p>\r\n--in--\r\n"
)
MULTIPART = (
    b"From: a@b\r\nSubject: outer\r\nX-Long: one\r\n two\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=out\r\n\r\npreamble\r\n"
    b"--out\r\nContent-Type: text/plain\r\nX-Part: 1\r\n\r\nfirst part\r\n"
    b"--out\r\nContent-Type: message/rfc822\r\n\r\n" + INNER + b"\r\n--out--\r\nepilogue\r\n"
)
HEADER, _, TEXT = MULTIPART.partition(b"\r\n\r\n")
HEADER += b"\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        yield served


def literal(answer: bytes) -> bytes:
    """Return the only literal of a response."""
    match = re.search(rb"\{([0-9]+)\}\r\n", answer)
    assert match is not None, answer
    return answer[match.end() : match.end() + int(match[1])]


def section(client: Lines, name: str) -> bytes:
    (answer,) = client.ok(f"FETCH 1 BODY.PEEK[{name}]")
    return literal(answer)


INNER_HEADER, _, INNER_TEXT = INNER.partition(b"\r\n\r\n")
SECTIONS = {
    "": MULTIPART,
    "HEADER": HEADER,
    "TEXT": TEXT,
    "HEADER.FIELDS (subject X-Long)": b"Subject: outer\r\nX-Long: one\r\n two\r\n\r\n",
    "HEADER.FIELDS.NOT (subject From MIME-Version content-type)":
        b"X-Long: one\r\n two\r\n\r\n",
    "HEADER.FIELDS (X-None)": b"\r\n",
    "1": b"first part",
    "1.MIME": b"Content-Type: text/plain\r\nX-Part: 1\r\n\r\n",
    "2": INNER,
    "2.MIME": b"Content-Type: message/rfc822\r\n\r\n",
    "2.HEADER": INNER_HEADER + b"\r\n\r\n",
    "2.TEXT": INNER_TEXT,
    "2.HEADER.FIELDS (SUBJECT)": b"Subject: inner\r\n\r\n",
    "2.HEADER.FIELDS.NOT (content-type)": b"Subject: inner\r\n\r\n",
    "2.1": b"inner text",
    "2.2.MIME": b"Content-Type: text/html\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_sections(server: ImapServer, name: str) -> None:
    server.deliver(MULTIPART)
    client = server.lines("INBOX")
    whole = SECTIONS[name]
    for _ in range(2):  # the second time by the structure that was kept
        assert section(client, name) == whole
    size = len(whole)
    for first, count in ((0, 5), (3, 100_000), (size - 1, 9), (size, 1), (size + 5, 7), (2, 1)):
        answer = client.ok(f"FETCH 1 BODY.PEEK[{name}]<{first}.{count}>")[0]
        assert literal(answer) == whole[first : first + count]
        assert b"]<%d> {" % first in answer


@pytest.mark.parametrize("name", ["3", "1.1", "1.HEADER", "2.3", "2.1.1", "1.TEXT", "3.MIME"])
def test_sections_that_are_not_there(server: ImapServer, name: str) -> None:
    server.deliver(MULTIPART)
    client = server.lines("INBOX")
    assert client.ok(f"FETCH 1 BODY.PEEK[{name}]") == [b"* 1 FETCH (BODY[%b] NIL)" % name.encode()]


def test_all_items_of_a_message(server: ImapServer) -> None:
    server.deliver(MESSAGE)
    client = server.lines("INBOX")
    (answer,) = client.ok(
        "FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE EMAILID THREADID"
        " MODSEQ)"
    )[-1:]
    assert answer.startswith(b'* 1 FETCH (UID 1 FLAGS (\\Recent) INTERNALDATE "')
    assert b" RFC822.SIZE %d ENVELOPE (" % len(MESSAGE) in answer
    assert b'"Hello" (("Bob" NIL "bob" "example.com"))' in answer
    assert b' BODYSTRUCTURE ("text" "plain" ' in answer
    assert re.search(rb" EMAILID \(E[0-9]+\) THREADID NIL MODSEQ \([0-9]+\)\)\Z", answer)
    for macro in ("ALL", "FAST", "FULL"):
        assert client.ok(f"FETCH 1 {macro}")[0].startswith(b"* 1 FETCH (FLAGS (\\Recent) INT")


def test_structure_is_parsed_once(server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.deliver(MULTIPART)
    client = server.lines("INBOX")
    first = client.ok("FETCH 1 (BODYSTRUCTURE ENVELOPE)")
    monkeypatch.setattr(message_content, "parse", None)
    assert client.ok("FETCH 1 (BODYSTRUCTURE ENVELOPE)") == first
    assert section(client, "2.1") == b"inner text"


def test_reading_makes_seen(server: ImapServer) -> None:
    server.deliver(MESSAGE, MESSAGE)
    client, other = server.lines("INBOX"), server.lines("INBOX")
    (answer,) = client.ok("FETCH 1 BODY[TEXT]")
    assert answer.endswith(b" FLAGS (\\Seen \\Recent))")
    assert b" FLAGS " not in client.ok("FETCH 1 BODY[TEXT]")[0]
    for item in ("BODY.PEEK[]", "RFC822.HEADER", "ENVELOPE", "BODY"):
        assert b"FLAGS" not in client.ok(f"FETCH 2 {item}")[0]
    assert client.ok("SEARCH UNSEEN") == [b"* SEARCH 2"]
    assert client.ok("FETCH 2 (FLAGS RFC822.TEXT)")[0].startswith(
        b"* 2 FETCH (FLAGS (\\Seen \\Recent) RFC822.TEXT {"
    )
    assert other.ok("NOOP") == [
        b"* 1 FETCH (FLAGS (\\Seen))",
        b"* 2 FETCH (FLAGS (\\Seen))",
    ]
    assert client.ok("NOOP") == []


def test_message_with_lf_is_served_with_crlf(server: ImapServer) -> None:
    server.deliver(MULTIPART.replace(b"\r\n", b"\n"))
    client = server.lines("INBOX")
    for name, whole in SECTIONS.items():
        assert section(client, name) == whole, name
    assert client.ok("FETCH 1 RFC822.SIZE") == [b"* 1 FETCH (RFC822.SIZE %d)" % len(MULTIPART)]


def test_nul_becomes_another_octet(server: ImapServer) -> None:
    for text in (b"a\0b\r\n", b"a\0b\r\n" * 100_000):
        server.deliver(b"A: b\r\n\r\n" + text)
    client = server.lines("INBOX")
    for number in (1, 2):
        (answer,) = client.ok(f"FETCH {number} BODY.PEEK[]")
        assert b"\0" not in answer
        assert literal(answer).count(b"a\x80b\r\n") in (1, 100_000)


def test_long_sections_among_other_items(server: ImapServer) -> None:
    text = b"0123456789abcdef" * 20_000
    message = b"Subject: long\r\n\r\n" + text + b"\r\n"
    server.deliver(message)
    client = server.lines("INBOX")
    (answer,) = client.ok("FETCH 1 (UID BODY[] BODY[TEXT] RFC822.SIZE)")
    head, tail = b"* 1 FETCH (UID 1 BODY[] {%d}\r\n" % len(message), b"Subject: long\r\n\r\n"
    assert answer == (
        head + message + b" BODY[TEXT] {%d}\r\n" % (len(message) - len(tail))
        + message[len(tail) :]
        + b" RFC822.SIZE %d FLAGS (\\Seen \\Recent))" % len(message)
    )  # fmt: skip
    (answer,) = client.ok("FETCH 1 (BODY.PEEK[] BODY.PEEK[TEXT]<1.100000>)")
    assert answer.endswith(b" BODY[TEXT]<1> {100000}\r\n" + text[1:100_001] + b")")


class WatchedHandler(ImapHandler):
    """Keeps the protocol objects of all connections."""

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.protocols: list[EngineProtocol] = []

    def connection(self, info: ConnectionInfo) -> EngineProtocol:
        self.protocols.append(super().connection(info))
        return self.protocols[-1]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path, WatchedHandler) as served:
        yield served


def test_slow_reader_is_waited_for(watched: ImapServer) -> None:
    """What it does not read stays in the file: 19 MB do not fit into the kernel's buffers."""
    message = b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 60_000
    watched.deliver(*[message] * 20)
    client, other = watched.lines("INBOX"), watched.lines("INBOX")
    assert isinstance(watched.handler, WatchedHandler)
    protocol = watched.handler.protocols[0]
    client.send(b"a FETCH 1:* BODY.PEEK[]\r\nb NOOP\r\n")
    until(lambda: protocol.write_paused)
    for _ in range(100):
        other.ok("NOOP")
    assert protocol.busy
    assert protocol.working
    answers = client.answers(b"a")
    assert [line[: line.index(b" FETCH")] for line in answers[:-1]] == [
        b"* %d" % number for number in range(1, 21)
    ]
    assert client.answers(b"b")[-1].startswith(b"OK ")


def test_header_longer_than_the_first_read(server: ImapServer) -> None:
    header = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 70) for n in range(1000)) + b"Last: x\r\n\r\n"
    server.deliver(header + b"body\r\n", header[:-2], b"", b"no header at all")
    client = server.lines("INBOX")
    assert section(client, "HEADER") == header
    assert section(client, "HEADER.FIELDS (last)") == b"Last: x\r\n\r\n"
    assert section(client, "TEXT") == b"body\r\n"
    assert literal(client.ok("FETCH 2 BODY.PEEK[HEADER]")[0]) == header[:-2]
    assert literal(client.ok("FETCH 2 BODY.PEEK[TEXT]")[0]) == b""


def test_many_messages(server: ImapServer) -> None:
    server.deliver(*[MESSAGE] * 450)
    client = server.lines("INBOX")
    sizes = client.ok("FETCH 1:* RFC822.SIZE")
    assert sizes == [b"* %d FETCH (RFC822.SIZE %d)" % (n + 1, len(MESSAGE)) for n in range(450)]
    flags = client.ok("UID FETCH 3:440 FLAGS")
    assert flags == [b"* %d FETCH (UID %d FLAGS (\\Recent))" % (n, n) for n in range(3, 441)]
    assert len(client.ok("FETCH 1:* BODY[]")) == 450
    assert client.ok("SEARCH UNSEEN") == [b"* SEARCH"]


def test_client_that_goes_away_leaves_nothing_open(server: ImapServer) -> None:
    message = b"Subject: long\r\n\r\n" + b"0123456789abcde\n" * 600_000
    server.deliver(*[message] * 3)
    for command in ("FETCH 1:* BODY.PEEK[]", "FETCH 1:* BODYSTRUCTURE", "SEARCH BODY nothing"):
        client = server.lines("INBOX")
        client.send(b"a %b\r\n" % command.encode())
        if "PEEK" in command:
            client.stream.read(100_000)  # the server waits for the rest to be read
        client.close()
        until(lambda: not any("/cur/" in one for one in open_below(server.root)), "closed files")
