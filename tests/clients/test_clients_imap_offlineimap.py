"""offlineimap keeps a tree of Maildirs and an account the same, with changes on both sides.

Rules of this file: as in the one of mbsync. offlineimap does not look at flags of messages that it
knows in a quick run, so every run is a whole one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, LocalMaildir, changed, filled
from support.marks import external

account = served_account

CONFIGURATION = """
[general]
accounts = alice
metadata = {state}
ui = quiet

[Account alice]
localrepository = files
remoterepository = ours

[Repository files]
type = Maildir
localfolders = {local}
sep = /

[Repository ours]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = {user}
remotepassfile = {password}
ssl = yes
sslcacertfile = {certificate}
"""


def offlineimap(account: ImapAccount, directory: Path) -> None:
    """Run offlineimap once."""
    for name in ("local", "state"):
        (directory / name).mkdir(exist_ok=True)
    password = directory / "password"
    password.write_text(account.password)
    path = directory / "offlineimaprc"
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
    done = run("offlineimap", "-o", "-c", path)
    assert b"ERROR" not in done.stdout + done.stderr


@external("offlineimap")
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_changes_on_both_sides(account: ImapAccount, tmp_path: Path, count: int) -> None:
    ours = ImapSide(account.client(), b"X-OfflineIMAP")
    theirs = LocalMaildir(tmp_path / "local", b"X-OfflineIMAP")
    inbox = filled(ours, "INBOX", "first", count)
    work = filled(theirs, "Work", "first", count // 4)
    offlineimap(account, tmp_path)
    assert ours.read("INBOX") == theirs.read("INBOX") == inbox
    assert ours.read("Work") == theirs.read("Work") == work
    for mailbox, known in (("INBOX", inbox), ("Work", work)):
        changed(ours, mailbox, known, 0, "ours")
        changed(theirs, mailbox, known, 4, "theirs")
    more = filled(ours, "Later", "first", 3)
    offlineimap(account, tmp_path)
    for mailbox, known in (("INBOX", inbox), ("Work", work), ("Later", more)):
        assert ours.read(mailbox) == theirs.read(mailbox) == known
    before = ours.state("INBOX", "Work", "Later")
    offlineimap(account, tmp_path)
    assert ours.state("INBOX", "Work", "Later") == before
