"""RFC 5161: ENABLE."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3.1 ENABLE command ---------------------------------------------------------------------------


def test_3_1_unknown_names_are_ignored(client: Lines) -> None:
    assert b" ENABLE" in client.ok("CAPABILITY")[0]
    expect(client, "ENABLE X-GOOD-IDEA", "* ENABLED", "OK ...")
    expect(client, "ENABLE X-GOOD-IDEA condstore", "* ENABLED CONDSTORE", "OK ...")


def test_3_1_what_is_always_on_is_not_enabled(client: Lines) -> None:
    expect(client, "ENABLE IDLE UIDPLUS MOVE", "* ENABLED", "OK ...")


def test_3_1_effect(client: Lines, box: str) -> None:
    expect(client, "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen))", "OK ...")
    expect(client, "ENABLE CONDSTORE", "*...", "* ENABLED CONDSTORE", "OK ...")
    expect(client, "STORE 1 -FLAGS (\\Seen)", "* 1 FETCH (FLAGS () MODSEQ (#))", "OK ...")


def test_3_1_syntax_and_state(server: ImapServer, client: Lines) -> None:
    expect(client, "ENABLE", "BAD ...")
    expect(client, "ENABLE (CONDSTORE)", "BAD ...")
    stranger = server.connect()
    expect(stranger, "ENABLE CONDSTORE", "BAD ...")
    stranger.close()
