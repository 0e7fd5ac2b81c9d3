"""IDLE: what happens is told when it happens (RFC 2177).

Rules of this file: two sessions of one server; nothing is waited for but responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, MESSAGE, ImapServer, Lines, serve_imap

from fastlisten.mail.accounts.roster import Account


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 3)
        yield served


def idle(client: Lines) -> None:
    client.send(b"i IDLE\r\n")
    assert client.response() == b"+ idling"


def done(client: Lines) -> list[bytes]:
    client.send(b"DONE\r\n")
    return client.answers(b"i")


def test_changes_are_told_at_once(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    idle(first)
    second.ok("STORE 2 +FLAGS.SILENT (\\Seen \\Deleted)")
    assert first.response() == b"* 2 FETCH (FLAGS (\\Deleted \\Seen \\Recent))"
    second.ok("EXPUNGE")
    assert [first.response() for _ in range(2)] == [b"* 2 EXPUNGE", b"* 2 RECENT"]
    second.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    assert first.response() == b"* 3 EXISTS"
    # Either session may be the one for which it is recent.
    assert done(first)[-1] == b"OK Idle completed."
    second.ok("STORE 1 +FLAGS (\\Seen)")
    assert first.ok("NOOP") == [b"* 1 FETCH (FLAGS (\\Seen \\Recent))"]


def test_delivery_is_told(server: ImapServer) -> None:
    client = server.lines("INBOX")
    idle(client)
    handler, loop = server.handler, server.loop
    assert handler is not None
    assert loop is not None
    work = handler.office.deliver([Account(ADDRESS)], MESSAGE)
    asyncio.run_coroutine_threadsafe(work, loop).result(30)
    assert client.response() == b"* 4 EXISTS"
    assert done(client)[-1] == b"OK Idle completed."


def test_what_happened_before_is_told_first(server: ImapServer) -> None:
    client = server.lines("INBOX")
    server.deliver()
    idle(client)
    assert client.response() == b"* 4 EXISTS"
    assert client.response() == b"* 4 RECENT"
    assert done(client) == [b"OK Idle completed."]


def test_without_a_mailbox(server: ImapServer) -> None:
    client = server.lines()
    idle(client)
    assert done(client) == [b"OK Idle completed."]


def test_anything_but_done_ends_it(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    idle(first)
    first.send(b"j NOOP\r\n")
    assert first.answers(b"i")[-1].startswith(b"BAD ")
    second.ok("STORE 1 +FLAGS (\\Seen)")
    assert first.ok("CHECK") == [b"* 1 FETCH (FLAGS (\\Seen \\Recent))"]


def test_mailbox_is_deleted_meanwhile(server: ImapServer) -> None:
    first, second = server.lines(), server.lines()
    first.ok("CREATE Work")
    first.ok("SELECT Work")
    idle(first)
    second.ok("DELETE Work")
    assert first.stream.read() == b"* BYE Selected mailbox was deleted, have to disconnect\r\n"


def test_idle_client_is_no_reason_to_wait(tmp_path: Path) -> None:
    with serve_imap(tmp_path, idle_timeout=0.3) as server:
        client = server.lines("INBOX")
        idle(client)
        assert client.stream.read() == b"* BYE Disconnected for inactivity.\r\n"
