"""RFC 2342: NAMESPACE; there are personal mailboxes only."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY


def test_5_namespace_command(client: Lines) -> None:
    assert b" NAMESPACE" in client.ok("CAPABILITY")[0]
    expect(client, "NAMESPACE", '* NAMESPACE (("" "/")) NIL NIL', "OK ...")
    expect(client, "NAMESPACE x", "BAD ...")


def test_5_prefix_and_delimiter_are_those_of_list(client: Lines, box: str) -> None:
    expect(client, f'LIST "" {box}', f'* LIST (...) "/" {box}', "OK ...")


def test_5_before_login(server: ImapServer) -> None:
    stranger = server.connect()
    expect(stranger, "NAMESPACE", "BAD ...")
    stranger.close()
