"""mbsync (isync) keeps a tree of Maildirs and an account the same, with changes on both sides.

Rules of this file: what both sides have in the end is computed from what was done, so that a
message lost, one there twice and a flag that went back all show. A last run finds nothing to do.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, LocalMaildir, changed, filled
from support.marks import external

account = served_account

CONFIGURATION = """
IMAPAccount ours
Host localhost
Port {port}
User {user}
PassCmd "cat {password}"
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


def mbsync(account: ImapAccount, directory: Path) -> None:
    """Run mbsync once."""
    for name in ("local", "state"):
        (directory / name).mkdir(exist_ok=True)
    # It would sleep until what has been put there is older.
    for folder in (directory / "local").rglob("*/"):
        os.utime(folder, (0, 0))
    password = directory / "password"
    password.write_text(account.password)
    path = directory / "mbsyncrc"
    path.write_text(
        CONFIGURATION.format(
            port=account.port,
            user=account.user,
            password=password,
            certificate=account.authority,
            local=directory / "local",
            state=directory / "state",
        )
    )
    run("mbsync", "-c", path, "mail")


@external("mbsync")
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_changes_on_both_sides(account: ImapAccount, tmp_path: Path, count: int) -> None:
    ours = ImapSide(account.client(), b"X-TUID")
    theirs = LocalMaildir(tmp_path / "local", b"X-TUID")
    inbox = filled(ours, "INBOX", "first", count)
    work = filled(theirs, "Work", "first", count // 4)
    mbsync(account, tmp_path)
    assert ours.read("INBOX") == theirs.read("INBOX") == inbox
    assert ours.read("Work") == theirs.read("Work") == work
    for mailbox, known in (("INBOX", inbox), ("Work", work)):
        changed(ours, mailbox, known, 0, "ours")
        changed(theirs, mailbox, known, 4, "theirs")
    more = filled(ours, "Later", "first", 3)
    mbsync(account, tmp_path)
    for mailbox, known in (("INBOX", inbox), ("Work", work), ("Later", more)):
        assert ours.read(mailbox) == theirs.read(mailbox) == known
    before = ours.state("INBOX", "Work", "Later")
    mbsync(account, tmp_path)
    assert ours.state("INBOX", "Work", "Later") == before
