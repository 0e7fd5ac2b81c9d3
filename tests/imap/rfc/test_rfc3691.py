"""RFC 3691: UNSELECT, which ends a mailbox as CLOSE does, and removes nothing."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 2 UNSELECT command ---------------------------------------------------------------------------


def test_2_nothing_is_removed(client: Lines, box: str) -> None:
    assert b" UNSELECT" in client.ok("CAPABILITY")[0]
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    expect(client, "UNSELECT", "OK ...")
    expect(client, f"STATUS {box} (MESSAGES)", f"* STATUS {box} (MESSAGES 4)", "OK ...")
    expect(client, "FETCH 1 FLAGS", "BAD ...")


def test_2_without_a_mailbox(client: Lines) -> None:
    expect(client, "UNSELECT", "BAD ...")


def test_2_nothing_is_told_of_it_afterwards(client: Lines, box: str, other: Lines) -> None:
    client.ok("UNSELECT")
    other.ok("STORE 1 +FLAGS.SILENT (\\Seen)")
    expect(client, "NOOP", "OK ...")
