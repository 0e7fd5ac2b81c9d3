"""RFC 6851: MOVE."""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect, new_mailbox
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3.1 MOVE, 3.2 UID MOVE -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["MOVE 2:3", "UID MOVE 2:3"])
def test_3_1_move(client: Lines, box: str, command: str) -> None:
    assert b" MOVE" in client.ok("CAPABILITY")[0]
    target = new_mailbox(client)
    client.ok("STORE 2 +FLAGS.SILENT (\\Seen word)")
    expect(client, f"{command} {target}", "* OK [COPYUID # 2:3 1:2] ...", "* ...EXPUNGE",
           "* ...EXPUNGE", "OK ...")  # fmt: skip
    expect(client, "UID SEARCH ALL", "* SEARCH 1 4", "OK ...")
    client.ok(f"EXAMINE {target}")
    expect(client, "FETCH 1:* FLAGS", "* 1 FETCH (FLAGS (\\Seen word...))",
           "* 2 FETCH (FLAGS (...))", "OK ...")  # fmt: skip


def test_3_3_neither_deleted_nor_more_than_named(client: Lines, box: str) -> None:
    """Others that are marked as deleted stay, and \\Deleted is not set on what is moved."""
    target = new_mailbox(client)
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok(f"MOVE 2 {target}")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 3 4", "OK ...")
    client.ok(f"EXAMINE {target}")
    expect(client, "SEARCH DELETED", "* SEARCH", "OK ...")


def test_3_3_nothing_happens_if_it_fails(client: Lines, box: str) -> None:
    expect(client, f"MOVE 1:4 {box}/new", "NO [TRYCREATE] ...")
    expect(client, "MOVE 9 INBOX", "BAD ...")
    expect(client, "UID MOVE 9 INBOX", "OK ...")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 2 3 4", "OK ...")


def test_3_3_into_the_same_mailbox(client: Lines, box: str) -> None:
    """They get new UIDs, as by COPY and EXPUNGE."""
    answers = client.ok(f"MOVE 2 {box}")
    assert b"* 2 EXPUNGE" in answers
    client.ok("NOOP")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 3 4 5", "OK ...")


def test_3_3_read_only(client: Lines, box: str) -> None:
    client.ok(f"EXAMINE {box}")
    expect(client, "MOVE 1 INBOX", "NO [READ-ONLY] ...")


# --- 4 Interaction with other extensions ----------------------------------------------------------


def test_4_4_qresync(client: Lines, box: str) -> None:
    client.ok("ENABLE QRESYNC")
    target = new_mailbox(client)
    expect(client, f"MOVE 2:3 {target}", "* OK [COPYUID # 2:3 1:2] ...", "* VANISHED 2:3",
           "OK [HIGHESTMODSEQ #] ...")  # fmt: skip


def test_4_4_others_are_told(client: Lines, box: str, other: Lines) -> None:
    target = new_mailbox(client)
    client.ok(f"MOVE 2 {target}")
    expect(other, "NOOP", "* 2 EXPUNGE", "OK ...")
