"""RFC 6154: SPECIAL-USE and CREATE-SPECIAL-USE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_expect import expect
from support.imap_server import ImapServer, Lines, serve_imap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    """An account of its own for each test: a use is there once."""
    with serve_imap(tmp_path) as served:
        yield served


@pytest.fixture
def client(server: ImapServer) -> Lines:
    client = server.lines()
    # Mailboxes that are made for new accounts have uses.
    for line in client.ok('LIST (SPECIAL-USE) "" *'):
        client.ok("DELETE " + line.rpartition(b" ")[2].decode())
    return client


# --- 2 New mailbox attributes ---------------------------------------------------------------------


@pytest.mark.parametrize("use", ["Archive", "Drafts", "Junk", "Sent", "Trash"])
def test_2_list_says_uses(client: Lines, use: str) -> None:
    assert b" SPECIAL-USE CREATE-SPECIAL-USE" in client.ok("CAPABILITY")[0]
    client.ok(f"CREATE Mine (USE (\\{use}))")
    listed = f'* LIST (\\HasNoChildren \\{use}) "/" Mine'
    expect(client, 'LIST "" Mine', listed, "OK ...")
    expect(client, 'LIST "" % RETURN (SPECIAL-USE)', "*...", listed, "OK ...")
    expect(client, 'LIST (SPECIAL-USE) "" *', listed, "OK ...")


def test_2_selection_with_others(client: Lines) -> None:
    client.ok("CREATE Mine (USE (\\Sent))")
    client.ok("UNSUBSCRIBE Mine")
    expect(client, 'LIST (SPECIAL-USE SUBSCRIBED) "" *', "OK ...")
    client.ok("SUBSCRIBE Mine")
    expect(client, 'LIST (SPECIAL-USE SUBSCRIBED) "" *',
           '* LIST (\\Subscribed \\HasNoChildren \\Sent) "/" Mine', "OK ...")  # fmt: skip


# --- 3 CREATE command -----------------------------------------------------------------------------


def test_3_uses_that_cannot_be(client: Lines) -> None:
    for use in ("\\All", "\\Flagged", "\\Unknown", "\\Sent \\Drafts"):
        expect(client, f"CREATE Second (USE ({use}))", "NO [USEATTR] ...")
    expect(client, 'LIST "" Second', "OK ...")


def test_3_one_mailbox_for_each_use(client: Lines) -> None:
    """Who asks for a use gets it; the mailbox that had it stays, without."""
    client.ok("CREATE First (USE (\\Trash))")
    client.ok("CREATE Second (USE (\\Trash))")
    expect(client, 'LIST (SPECIAL-USE) "" *', '* LIST (... \\Trash) "/" Second', "OK ...")
    expect(client, 'LIST "" First', '* LIST (\\HasNoChildren) "/" First', "OK ...")


def test_3_no_use_and_wrong_syntax(client: Lines) -> None:
    expect(client, "CREATE Plain (USE ())", "OK ...")
    expect(client, "CREATE Other (USES (\\Sent))", "BAD ...")
    expect(client, "CREATE Other (USE \\Sent)", "BAD ...")
    expect(client, "CREATE Other USE (\\Sent)", "BAD ...")


# --- 5 It belongs to the mailbox ------------------------------------------------------------------


def test_5_renamed_and_deleted(client: Lines) -> None:
    client.ok("CREATE Mine (USE (\\Junk))")
    client.ok("RENAME Mine Yours")
    expect(client, 'LIST (SPECIAL-USE) "" *', '* LIST (... \\Junk) "/" Yours', "OK ...")
    client.ok("DELETE Yours")
    expect(client, 'LIST (SPECIAL-USE) "" *', "OK ...")
    client.ok("CREATE Again (USE (\\Junk))")
