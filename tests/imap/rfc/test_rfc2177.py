"""RFC 2177: IDLE.

Rules of this file: what wakes a session up, over processes too, is in test_imap_session_idle*.py.
"""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect, fill, fits
from support.imap_server import MESSAGE, ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3 Specification ------------------------------------------------------------------------------


def test_3_changes_are_told_until_done(client: Lines, box: str, other: Lines) -> None:
    client.send(b"a IDLE\r\n")
    assert fits(client.response(), "+ ...")
    fill(other, box, MESSAGE)
    assert client.response() == b"* 5 EXISTS"
    other.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    told = [client.response()]
    while told[-1] != b"* 2 EXPUNGE":
        told.append(client.response())
    client.send(b"DONE\r\n")
    assert client.answers(b"a")[-1].startswith(b"OK ")
    expect(client, "FETCH 2 UID", "* 2 FETCH (UID 3)", "OK ...")


def test_3_done_in_any_case(client: Lines, box: str) -> None:
    client.send(b"a IDLE\r\ndone\r\n")
    assert fits(client.response(), "+ ...")
    assert fits(client.response(), "a OK ...")


def test_3_anything_else_is_wrong(client: Lines, box: str) -> None:
    client.send(b"a IDLE\r\n")
    assert fits(client.response(), "+ ...")
    client.send(b"b NOOP\r\n")
    assert fits(client.response(), "a BAD ...")
    client.ok("NOOP")


def test_3_without_a_mailbox(client: Lines) -> None:
    client.send(b"a IDLE\r\nDONE\r\n")
    assert fits(client.response(), "+ ...")
    assert fits(client.response(), "a OK ...")


def test_1_capability(server: ImapServer, client: Lines) -> None:
    stranger = server.connect()
    assert b" IDLE" in stranger.greeting
    expect(stranger, "IDLE", "BAD ...")
    assert b" IDLE" in client.ok("CAPABILITY")[0]
    stranger.close()
