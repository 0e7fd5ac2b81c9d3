"""What is done to an account beside its sessions: autoexpunge, a new index, a restored backup.

Rules of this file: `account rebuild` and `restore` are what another process does to the files.
"""

from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path

from support.imap_server import MESSAGE, Lines, serve_imap
from support.mail_store import index_of
from support.waiting import until

from fastlisten.mail.store.backup import back_up
from fastlisten.mail.store.backup_forms import TarSink, TarSource
from fastlisten.mail.store.index import RESTORED_STRIDE
from fastlisten.mail.store.rebuild import rebuild
from fastlisten.mail.store.restore import restore

#: Every message is that old at once.
AGES = {"autoexpunge.trash": 3600.0, "folders.trash": "Trash"}


def append(client: Lines, mailbox: str, count: int = 1) -> None:
    for _ in range(count):
        client.ok(b"APPEND %b {%d+}\r\n%b" % (mailbox.encode(), len(MESSAGE), MESSAGE))


def messages(client: Lines, mailbox: str) -> int:
    (status,) = client.ok(f"STATUS {mailbox} (MESSAGES)")
    found = re.search(rb"MESSAGES ([0-9]+)", status)
    assert found is not None
    return int(found[1])


def age(root: Path, hours: float) -> None:
    """Have all messages be older, and have autoexpunge done again."""
    with index_of(root) as index, index.locked(), index.transaction() as db:
        db.execute("UPDATE message SET createseq = ?", (int((time.time() - hours * 3600) * 1e6),))
    os.utime(root / "index.autoexpunge", (1, 1))


def test_autoexpunge(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options=AGES) as server:
        first = server.lines()
        until(lambda: (server.root / "index.autoexpunge").exists())
        append(first, "Trash", 3)
        append(first, "INBOX", 2)
        age(server.root, 2)
        assert server.handler is not None
        server.handler._looked_after.clear()  # as if it had been a day ago
        server.lines()
        until(lambda: messages(first, "Trash") == 0)
        assert messages(first, "INBOX") == 2
        # Not again today, though messages are old.
        append(first, "Trash")
        age(server.root, 2)
        server.lines().ok("NOOP")
        assert messages(first, "Trash") == 1


def test_no_autoexpunge_by_default(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"folders.trash": "Trash"}) as server:
        client = server.lines()
        append(client, "Trash")
        assert not (server.root / "index.autoexpunge").exists()
        assert messages(client, "Trash") == 1


def ends(client: Lines, command: str) -> None:
    """Say something in a mailbox that is no more."""
    client.send(f"x {command}\r\n".encode())
    answers: list[bytes] = []
    while not answers or not answers[-1].startswith((b"* BYE", b"x ")):
        answers.append(client.response())
    assert answers[-1].startswith(b"* BYE Selected mailbox was deleted"), answers


def idling(client: Lines) -> Lines:
    client.send(b"i IDLE\r\n")
    assert client.response().startswith(b"+ ")
    return client


def test_new_index(tmp_path: Path) -> None:
    with serve_imap(tmp_path) as server:
        client = server.lines()
        append(client, "INBOX", 2)
        (before,) = client.ok("STATUS INBOX (UIDVALIDITY)")
        client.ok("SELECT INBOX")
        idler = idling(server.lines("INBOX"))
        with index_of(server.root) as index:
            rebuild(index)
        ends(client, "FETCH 1:* FLAGS")
        assert idler.response().startswith(b"* BYE Selected mailbox was deleted")
        other = server.lines("INBOX")
        assert len(other.ok("FETCH 1:* UID")) == 2
        assert other.ok("STATUS INBOX (UIDVALIDITY)") != [before]


def test_restored_backup(tmp_path: Path) -> None:
    with serve_imap(tmp_path) as server:
        client = server.lines()
        append(client, "INBOX", 2)
        archive = io.BytesIO()
        with index_of(server.root) as index:
            sink = TarSink(archive)
            back_up(index, sink)
            sink.close()
        append(client, "INBOX")
        client.ok("SELECT INBOX")
        idler = idling(server.lines("INBOX"))
        archive.seek(0)
        restore(str(server.root), TarSource(archive), force=True)
        assert idler.response() == b"* 3 EXPUNGE"
        assert client.ok("NOOP")[0] == b"* 3 EXPUNGE"  # then flags, which may have changed
        assert client.ok("UID SEARCH ALL") == [b"* SEARCH 1 2"]
        append(client, "INBOX")
        assert b"* 3 EXISTS" in iter(idler.response, b"")
        assert client.ok("UID SEARCH ALL") == [b"* SEARCH 1 2 %d" % (3 + RESTORED_STRIDE)]
        assert len(client.ok("FETCH 1:3 BODY.PEEK[]")) == 3
