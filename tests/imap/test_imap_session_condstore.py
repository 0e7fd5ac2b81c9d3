"""CONDSTORE: modification sequences in FETCH, STORE and SEARCH (RFC 7162 3.1).

Rules of this file: numbers are compared with each other, never with fixed ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 4)
        yield served


def number(text: bytes, before: bytes) -> int:
    match = re.search(before + rb" \(?([0-9]+)", text)
    assert match is not None, text
    return int(match[1])


def modseqs(client: Lines) -> list[int]:
    answers = client.ok("FETCH 1:* MODSEQ")
    return [number(answer, b"MODSEQ") for answer in answers if b" FETCH " in answer]


ENABLING = (
    "FETCH 1 MODSEQ",
    "FETCH 1:* (FLAGS) (CHANGEDSINCE 1)",
    "STORE 4 (UNCHANGEDSINCE 1) +FLAGS (\\Draft)",
    "SEARCH MODSEQ 1",
    "STATUS INBOX (HIGHESTMODSEQ)",
    "ENABLE CONDSTORE",
)


@pytest.mark.parametrize("command", ENABLING)
def test_what_enables_it(server: ImapServer, command: str) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    second.ok("STORE 1 +FLAGS.SILENT (\\Seen)")
    assert b"MODSEQ" not in first.ok("NOOP")[0]
    assert first.ok(command)[0].startswith(b"* OK [HIGHESTMODSEQ ")
    second.ok("STORE 1 +FLAGS.SILENT (\\Flagged)")
    assert re.fullmatch(
        rb"\* 1 FETCH \(FLAGS \(\\Flagged \\Seen \\Recent\) MODSEQ \([0-9]+\)\)",
        first.ok("NOOP")[0],
    )
    assert not any(b"HIGHESTMODSEQ" in line for line in first.ok("FETCH 1 MODSEQ"))


def test_select_enables_it(server: ImapServer) -> None:
    client = server.lines()
    client.ok("SELECT INBOX (CONDSTORE)")
    assert b" MODSEQ (" in client.ok("STORE 1 +FLAGS (\\Seen)")[0]


def test_numbers_grow(server: ImapServer) -> None:
    client = server.lines("INBOX")
    before = modseqs(client)
    (answer,) = client.ok("STORE 2 +FLAGS (\\Seen)")
    changed = number(answer, b"MODSEQ")
    assert changed > max(before)
    assert modseqs(client) == [before[0], changed, *before[2:]]
    # Nothing has changed.
    assert number(client.ok("STORE 2 +FLAGS (\\Seen)")[0], b"MODSEQ") == changed
    (silent,) = client.ok("STORE 3 +FLAGS.SILENT (\\Seen)")
    assert re.fullmatch(rb"\* 3 FETCH \(MODSEQ \([0-9]+\)\)", silent)
    assert number(silent, b"MODSEQ") > changed
    (read,) = client.ok("FETCH 4 BODY[TEXT]")
    assert number(read, b"MODSEQ") > number(silent, b"MODSEQ")
    assert number(client.ok("STATUS INBOX (HIGHESTMODSEQ)")[0], b"HIGHESTMODSEQ") == max(
        modseqs(client)
    )


def test_changed_since(server: ImapServer) -> None:
    client = server.lines("INBOX")
    since = max(modseqs(client))
    client.ok("STORE 2,4 +FLAGS.SILENT (\\Seen)")
    answers = client.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {since})")
    assert [answer[:9] for answer in answers] == [b"* 2 FETCH", b"* 4 FETCH"]
    assert all(b" MODSEQ (" in answer for answer in answers)
    answers = client.ok(f"UID FETCH 3:* BODY.PEEK[TEXT] (CHANGEDSINCE {since})")
    assert [answer[:15] for answer in answers] == [b"* 4 FETCH (UID "]


def test_unchanged_since(server: ImapServer) -> None:
    client, other = server.lines("INBOX"), server.lines("INBOX")
    since = max(modseqs(client))
    other.ok("STORE 2:3 +FLAGS.SILENT (\\Flagged)")
    *untagged, tagged = client.say(f"STORE 1:4 (UNCHANGEDSINCE {since}) +FLAGS.SILENT (\\Seen)")
    assert tagged == b"OK [MODIFIED 2:3] Conditional store failed."
    assert [line[:9] for line in untagged] == [b"* %d FETCH" % n for n in (1, 4, 2, 3)]
    assert client.ok("SEARCH SEEN")[-1] == b"* SEARCH 1 4"
    tagged = client.say(f"UID STORE 2 (UNCHANGEDSINCE {since}) +FLAGS (\\Seen)")[-1]
    assert tagged == b"OK [MODIFIED 2] Conditional store failed."
    since = max(modseqs(client))
    assert client.say(f"STORE 2 (UNCHANGEDSINCE {since}) +FLAGS (\\Seen)")[-1].startswith(
        b"OK Store"
    )


def test_search(server: ImapServer) -> None:
    client = server.lines("INBOX")
    client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    client.ok("STORE 3 +FLAGS.SILENT (\\Seen)")
    second, third = modseqs(client)[1:3]
    assert client.ok(f"SEARCH MODSEQ {second}") == [b"* SEARCH 2 3 (MODSEQ %d)" % third]
    assert client.ok(f"SEARCH MODSEQ {third + 1}") == [b"* SEARCH"]
    (answer,) = client.ok(f"SEARCH RETURN (MIN) MODSEQ {second}")
    assert answer.endswith(b" MIN 2 MODSEQ %d" % second)
    (answer,) = client.ok(f"SEARCH RETURN (MIN MAX) MODSEQ {second}")
    assert answer.endswith(b" MIN 2 MAX 3 MODSEQ %d" % third)
    (answer,) = client.ok(f'SEARCH RETURN (COUNT) MODSEQ "/flags/\\\\Seen" all {third}')
    assert answer.endswith(b" COUNT 1 MODSEQ %d" % third)


def test_close_says_the_highest(server: ImapServer) -> None:
    client = server.lines("INBOX", enable="CONDSTORE")
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    highest = max(modseqs(client))
    tagged = client.say("CLOSE")[-1]
    assert number(tagged, b"HIGHESTMODSEQ") > highest
