"""mbsync (isync) keeps a tree of Maildirs and an account the same, with changes on both sides.

Rules of this file: what both sides have in the end is computed from what was done, so that a
message lost, one there twice and a flag that went back all show. A last run finds nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.external_programs import run
from support.imap_server import ADDRESS, PASSWORD, ImapServer, serve_imap
from support.imap_sync import ImapSide, LocalMaildir, changed, filled
from support.marks import external

CONFIGURATION = """
IMAPAccount ours
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
SSLType IMAPS
CertificateFile {certificate}

IMAPStore remote
Account ours

MaildirStore local
Path {local}/
Inbox {local}/INBOX
SubFolders Verbatim

Channel mail
Far :remote:
Near :local:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState {state}/
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    (tmp_path / "server").mkdir()
    with serve_imap(tmp_path / "server") as served:
        yield served


def mbsync(server: ImapServer, directory: Path, *options: str) -> str:
    """Run mbsync once; return what it prints."""
    for name in ("local", "state"):
        (directory / name).mkdir(exist_ok=True)
    # It would sleep until what has been put there is older.
    for folder in (directory / "local").rglob("*/"):
        os.utime(folder, (0, 0))
    path = directory / "mbsyncrc"
    path.write_text(
        CONFIGURATION.format(
            port=server.port,
            user=ADDRESS,
            password=PASSWORD,
            certificate=server.certificate,
            local=directory / "local",
            state=directory / "state",
        )
    )
    return run("mbsync", "-c", path, *options, "mail").stdout.decode()


@external("mbsync")
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_changes_on_both_sides(server: ImapServer, tmp_path: Path, count: int) -> None:
    ours = ImapSide(server.client(), b"X-TUID")
    theirs = LocalMaildir(tmp_path / "local", b"X-TUID")
    inbox = filled(ours, "INBOX", "first", count)
    work = filled(theirs, "Work", "first", count // 4)
    mbsync(server, tmp_path)
    assert ours.read("INBOX") == theirs.read("INBOX") == inbox
    assert ours.read("Work") == theirs.read("Work") == work
    for mailbox, known in (("INBOX", inbox), ("Work", work)):
        changed(ours, mailbox, known, 0, "ours")
        changed(theirs, mailbox, known, 4, "theirs")
    more = filled(ours, "Later", "first", 3)
    mbsync(server, tmp_path)
    for mailbox, known in (("INBOX", inbox), ("Work", work), ("Later", more)):
        assert ours.read(mailbox) == theirs.read(mailbox) == known
    before = ours.state("INBOX", "Work", "Later")
    mbsync(server, tmp_path)
    assert ours.state("INBOX", "Work", "Later") == before
