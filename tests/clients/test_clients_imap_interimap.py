"""interimap keeps an account here and one of Dovecot the same by QRESYNC, with changes on both.

Rules of this file: as in the one of mbsync. Dovecot's IMAP process is the other side, as a tunnel:
both servers must tell the same of what has changed and what is gone since the last run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from imaplib import IMAP4_stream
from pathlib import Path

import pytest
from support.dovecot_imap import dovecot_command
from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, changed, filled
from support.marks import external

account = served_account

CONFIGURATION = """
database = {directory}/state.db

[local]
type = tunnel
command = cat | {command} | cat
null-stderr = YES

[remote]
type = imaps
host = 127.0.0.1
port = {port}
username = {user}
password = {password}
SSL_CAfile = {certificate}
"""


@pytest.fixture
def command() -> Iterator[str]:
    with dovecot_command() as words:
        yield shlex.join(words)


def interimap(account: ImapAccount, directory: Path, command: str) -> None:
    """Run interimap once."""
    path = directory / "interimap.conf"
    path.write_text(
        CONFIGURATION.format(
            directory=directory,
            command=command,
            port=account.port,
            user=account.user,
            password=account.password,
            certificate=account.authority,
        )
    )
    run("interimap", "--config", path)


@external("interimap")
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_changes_on_both_sides(
    account: ImapAccount, tmp_path: Path, command: str, count: int
) -> None:
    ours = ImapSide(account.client())
    with IMAP4_stream(f"exec {command} 2>/dev/null") as client:
        theirs = ImapSide(client)
        inbox = filled(ours, "INBOX", "first", count)
        work = filled(theirs, "Work", "first", count // 4)
        interimap(account, tmp_path, command)
        assert ours.read("INBOX") == theirs.read("INBOX") == inbox
        assert ours.read("Work") == theirs.read("Work") == work
        for mailbox, known in (("INBOX", inbox), ("Work", work)):
            changed(ours, mailbox, known, 0, "ours")
            changed(theirs, mailbox, known, 4, "theirs")
        more = filled(ours, "Later", "first", 3)
        interimap(account, tmp_path, command)
        for mailbox, known in (("INBOX", inbox), ("Work", work), ("Later", more)):
            assert ours.read(mailbox) == theirs.read(mailbox) == known
        before = ours.state("INBOX", "Work", "Later")
        interimap(account, tmp_path, command)
        assert ours.state("INBOX", "Work", "Later") == before
