"""A real client, imaplib, reads the mail of a Maildir over TLS, from login to logout.

Rules of this file: what a client does in its daily work, once each. What each command answers in
detail is in the files beside this one.
"""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.imap_server import ADDRESS, MESSAGE, ImapServer, serve_imap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        yield served


def test_daily_work(server: ImapServer) -> None:
    server.deliver()
    client = server.client()
    assert client.select() == ("OK", [b"1"])
    data: Any
    status, data = client.fetch("1", "(FLAGS RFC822.SIZE BODY.PEEK[])")
    assert status == "OK"
    head, content = data[0]
    assert content == MESSAGE
    assert head.startswith(b"1 (FLAGS (\\Recent) RFC822.SIZE %d BODY[] {" % len(MESSAGE))
    assert client.search(None, "SUBJECT", "hello") == ("OK", [b"1"])
    assert client.store("1", "+FLAGS", "(\\Seen $Label1)")[1] == [
        b"1 (FLAGS (\\Seen $Label1 \\Recent))"
    ]
    assert client.create("Work")[0] == "OK"
    assert client.list()[1] == [b'(\\HasNoChildren) "/" INBOX', b'(\\HasNoChildren) "/" Work']
    assert client.copy("1", "Work")[0] == "OK"
    assert client.store("1", "+FLAGS.SILENT", "\\Deleted") == ("OK", [None])
    assert client.expunge() == ("OK", [b"1"])
    status, data = client.append("Work", "(\\Flagged)", None, MESSAGE)
    assert status == "OK"
    assert data[0].startswith(b"[APPENDUID ")
    assert client.status("Work", "(MESSAGES UNSEEN)")[1] == [b"Work (MESSAGES 2 UNSEEN 1)"]
    assert client.close()[0] == "OK"
    assert client.logout()[0] == "BYE"


def test_authenticate(server: ImapServer) -> None:
    client = imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=server.context)
    with client:
        response = f"\0{ADDRESS}\0wonder".encode()
        assert client.authenticate("PLAIN", lambda _: response)[0] == "OK"
        assert client.state == "AUTH"
