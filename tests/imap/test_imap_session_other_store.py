"""IMAP over a store that is no Maildir: a handler that overrides where mail comes from.

Rules of this file: what the session does goes through `mail.store.interface` and nothing else, so
the store in memory must do for all commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, serve_imap
from support.memory_store import MemoryAccount

from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.imap.handler import ImapHandler
from fastlisten.mail.accounts.roster import Account as Login
from fastlisten.mail.store.interface import Account


class MemoryHandler(ImapHandler):
    """Serves the same messages to every account."""

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.mail = MemoryAccount([MESSAGE] * 3)
        self.sessions = 0

    def open_account(self, login: Login) -> Account:
        self.sessions += 1
        return self.mail

    def close_account(self, login: Login) -> None:
        self.sessions -= 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path, MemoryHandler) as served:
        yield served
        assert not (tmp_path / "mail").exists()
        served.close_clients()
    assert isinstance(served.handler, MemoryHandler)
    assert served.handler.sessions == 0


def test_daily_work(server: ImapServer) -> None:
    client = server.client()
    assert client.select() == ("OK", [b"3"])
    status, data = client.fetch("2", "(UID FLAGS RFC822.SIZE ENVELOPE BODY.PEEK[])")
    assert status == "OK"
    assert data[0][1] == MESSAGE  # type: ignore[index]
    assert client.search(None, "SUBJECT", "hello", "UNSEEN") == ("OK", [b"1 2 3"])
    assert client.store("1", "+FLAGS", "\\Deleted")[1] == [b"1 (FLAGS (\\Deleted))"]
    assert client.expunge() == ("OK", [b"1"])
    assert client.copy("1", "INBOX")[0] == "OK"
    assert client.append("INBOX", "(\\Seen)", None, MESSAGE)[0] == "OK"
    assert client.list() == ("OK", [b'(\\HasNoChildren) "/" INBOX'])
    assert client.status("INBOX", "(MESSAGES UNSEEN)") == ("OK", [b"INBOX (MESSAGES 4 UNSEEN 3)"])
    assert client.create("Work")[0] == "NO"
    assert client.select("Work")[0] == "NO"
    client.logout()


def test_two_sessions(server: ImapServer) -> None:
    first, second = server.lines("INBOX", enable="QRESYNC"), server.lines("INBOX")
    first.send(b"i IDLE\r\n")
    assert first.response() == b"+ idling"
    second.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    assert first.response().startswith(b"* 2 FETCH (UID 2 FLAGS (\\Deleted) MODSEQ (")
    second.ok("EXPUNGE")
    assert first.response() == b"* VANISHED 2"
    assert first.response().startswith(b"* OK [HIGHESTMODSEQ ")
    second.ok("MOVE 1 INBOX")
    assert first.response() == b"* VANISHED 1"
    first.send(b"DONE\r\n")
    assert first.answers(b"i")[-1].startswith(b"OK ")
    assert first.ok("UID SEARCH ALL") == [b"* SEARCH 3 4"]
