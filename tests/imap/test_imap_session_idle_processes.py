"""IDLE over processes: what happens to the selected mailbox is told, whoever does it.

Rules of this file: nothing is waited for but responses. The look every 30 s is put off, so that
only notices can be what told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, MESSAGE, ImapServer, Lines, serve_imap
from support.mail_store import deliver

from fastlisten.mail.store import open_accounts
from fastlisten.mail.store.notices import Notices

PROGRAM = f"""
import asyncio, sys
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.post_office import PostOffice
office = PostOffice.enter(sys.argv[1])
asyncio.run(office.deliver([Account({ADDRESS!r})], {MESSAGE!r}))
office.leave()
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImapServer]:
    monkeypatch.setattr(open_accounts, "SWEEP", 3600.0)
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 2)
        yield served


def idle(client: Lines) -> None:
    client.send(b"i IDLE\r\n")
    assert client.response() == b"+ idling"


def done(client: Lines) -> list[bytes]:
    client.send(b"DONE\r\n")
    return client.answers(b"i")


def root_of(server: ImapServer) -> Path:
    return Path(server.root)


def test_delivery_of_another_process(server: ImapServer) -> None:
    client = server.lines("INBOX")
    idle(client)
    subprocess.run([sys.executable, "-c", PROGRAM, str(root_of(server).parent.parent)], check=True)
    assert client.response() == b"* 3 EXISTS"
    assert done(client) == [b"* 3 RECENT", b"OK Idle completed."]


def test_foreign_program_renames_a_file_into_new(server: ImapServer) -> None:
    client = server.lines("INBOX")
    idle(client)
    deliver(str(root_of(server)))
    assert client.response() == b"* 3 EXISTS"
    done(client)


def test_foreign_program_sets_flags_and_removes(server: ImapServer) -> None:
    client = server.lines("INBOX")
    cur = root_of(server) / "cur"
    first = min(os.listdir(cur))
    idle(client)
    os.rename(cur / first, cur / f"{first}S")
    answer = client.response()
    assert answer.endswith(b"FETCH (FLAGS (\\Seen \\Recent))")
    number = answer.split()[1]
    os.unlink(cur / f"{first}S")
    assert client.response() == b"* %b EXPUNGE" % number
    done(client)


def test_folder_is_removed_by_another_program(server: ImapServer) -> None:
    other, client = server.lines(), server.lines()
    other.ok("CREATE Work")
    client.ok("SELECT Work")
    idle(client)
    other.ok("DELETE Work")
    assert client.stream.read() == b"* BYE Selected mailbox was deleted, have to disconnect\r\n"


def test_other_accounts_are_left_alone(server: ImapServer) -> None:
    """A change in another folder of the account tells nothing, and costs nothing but a look."""
    client, other = server.lines("INBOX"), server.lines()
    other.ok("CREATE Work")
    idle(client)
    other.ok(b"APPEND Work {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    assert done(client) == [b"OK Idle completed."]


def test_without_inotify_the_sweep_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_accounts, "SWEEP", 0.05)
    monkeypatch.setattr(Notices, "add", lambda *_: -1)
    with serve_imap(tmp_path) as server:
        client, other = server.lines("INBOX"), server.lines("INBOX")
        idle(client)
        server.deliver()
        assert client.response() == b"* 1 EXISTS"
        monkeypatch.setattr(open_accounts, "SWEEP", 3600.0)
        # What this process does is told without it.
        client.response()
        other.ok("NOOP")
        other.ok("STORE 1 +FLAGS (\\Seen)")
        assert client.response().startswith(b"* 1 FETCH (FLAGS (\\Seen")
        done(client)


def test_nothing_is_watched_after_idle(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    handler, loop = server.handler, server.loop
    assert handler is not None
    assert loop is not None
    idle(first)
    idle(second)
    account = handler._accounts._accounts[str(root_of(server))]  # type: ignore[union-attr]
    (folder,) = account._folders
    assert len(folder._idlers) == 2
    done(first)
    second.send(b"DONE\r\nl LOGOUT\r\n")
    second.stream.read()
    assert folder._idlers == ()
