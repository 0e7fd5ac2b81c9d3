"""STORE, EXPUNGE, COPY and MOVE, with the UIDs of UIDPLUS (RFC 3501 6.4, 4315, 6851).

Rules of this file: one session; what others are told is in test_imap_session_changes.py.
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
        served.deliver(*[MESSAGE] * 5)
        yield served


@pytest.fixture
def client(server: ImapServer) -> Lines:
    client = server.lines()
    client.ok("CREATE Work")
    client.ok("SELECT INBOX")
    return client


def test_store_modes(client: Lines) -> None:
    assert client.ok("STORE 1:2 FLAGS (\\Seen $One)")[-2:] == [
        b"* 1 FETCH (FLAGS (\\Seen $One \\Recent))",
        b"* 2 FETCH (FLAGS (\\Seen $One \\Recent))",
    ]
    assert client.ok("STORE 1 +FLAGS (\\Flagged $ONE)") == [
        b"* 1 FETCH (FLAGS (\\Flagged \\Seen $One \\Recent))"
    ]
    assert client.ok("STORE 1 -FLAGS (\\Seen $one)") == [b"* 1 FETCH (FLAGS (\\Flagged \\Recent))"]
    # What does not change is answered too.
    assert client.ok("STORE 1 -FLAGS (\\Seen)") == [b"* 1 FETCH (FLAGS (\\Flagged \\Recent))"]
    assert client.ok("UID STORE 1 FLAGS ()") == [b"* 1 FETCH (UID 1 FLAGS (\\Recent))"]
    assert client.ok("STORE 1:5 +FLAGS.SILENT (\\Draft)") == []
    assert client.ok("UID STORE 99 +FLAGS (\\Draft)") == []
    assert client.ok("SEARCH DRAFT") == [b"* SEARCH 1 2 3 4 5"]


def test_flags_are_in_the_names_of_files(server: ImapServer, client: Lines) -> None:
    client.ok("STORE 1 +FLAGS.SILENT (\\Seen \\Answered)")
    names = [path.name for path in (server.root / "cur").iterdir()]
    assert sum(name.endswith(":2,RS") for name in names) == 1


def test_expunge(client: Lines) -> None:
    client.ok("STORE 1,3,5 +FLAGS.SILENT (\\Deleted)")
    assert client.ok("UID EXPUNGE 3:4") == [b"* 3 EXPUNGE", b"* 4 RECENT"]
    assert client.ok("EXPUNGE") == [b"* 1 EXPUNGE", b"* 3 EXPUNGE", b"* 2 RECENT"]
    assert client.ok("EXPUNGE") == []
    assert client.ok("UID SEARCH ALL") == [b"* SEARCH 2 4"]


def test_close_expunges_silently(client: Lines) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    assert client.ok("CLOSE") == []
    client.ok("SELECT INBOX")
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert client.ok("UNSELECT") == []
    client.ok("SELECT INBOX")
    assert client.ok("UID SEARCH ALL") == [b"* SEARCH 1 3 4 5"]
    assert client.ok("SEARCH DELETED") == [b"* SEARCH 1"]


def test_copy(client: Lines) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Flagged $Kept)")
    tagged = client.say("COPY 2,4:5 Work")[-1]
    assert re.fullmatch(rb"OK \[COPYUID [0-9]+ 2,4:5 1:3\] Copy completed\.", tagged)
    assert client.say("UID COPY 99 Work")[-1] == b"OK Copy completed."
    assert client.say("COPY 1 Nowhere")[-1].startswith(b"NO [TRYCREATE] ")
    client.ok("SELECT Work")
    answers = client.ok("FETCH 1:* (FLAGS BODY.PEEK[])")
    assert len(answers) == 3
    assert b"(\\Flagged $Kept \\Recent)" in answers[0]
    assert MESSAGE in answers[0]


def test_copy_into_the_same_mailbox(client: Lines) -> None:
    *untagged, tagged = client.say("COPY 1 INBOX")
    assert untagged[0] == b"* 6 EXISTS"
    assert re.match(rb"OK \[COPYUID [0-9]+ 1 6\] ", tagged)


@pytest.mark.parametrize("command", ["MOVE 2,4", "UID MOVE 2,4,77"])
def test_move(client: Lines, command: str) -> None:
    *untagged, tagged = client.say(f"{command} Work")
    assert re.fullmatch(rb"\* OK \[COPYUID [0-9]+ 2,4 1:2\] Moved UIDs\.", untagged[0])
    assert untagged[1:] == [b"* 2 EXPUNGE", b"* 3 EXPUNGE", b"* 3 RECENT"]
    assert tagged == b"OK Move completed."
    assert client.ok("UID SEARCH ALL") == [b"* SEARCH 1 3 5"]
    assert client.ok("STATUS Work (MESSAGES)") == [b"* STATUS Work (MESSAGES 2)"]


def test_move_that_fails(client: Lines) -> None:
    assert client.say("MOVE 1 Nowhere")[-1].startswith(b"NO [TRYCREATE] ")
    assert client.say("UID MOVE 99 Work") == [b"OK Move completed."]
    assert client.ok("UID SEARCH ALL") == [b"* SEARCH 1 2 3 4 5"]


def test_email_id_survives(client: Lines) -> None:
    (before,) = client.ok("FETCH 1 EMAILID")
    client.ok("COPY 1 Work")
    client.ok("MOVE 1 Work")
    client.ok("SELECT Work")
    ids = [answer.partition(b"EMAILID")[2] for answer in client.ok("FETCH 1:2 EMAILID")]
    assert ids == [before.partition(b"EMAILID")[2]] * 2
