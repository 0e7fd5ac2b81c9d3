"""Logins: what is said at the start if nobody can log in, and whose failures are counted.

Rules of this file: the program with a real file, or a handler with real clients.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.imap_server import ADDRESS, serve_imap
from support.program import program
from support.real_server import ALICE, HOST
from support.waiting import until

from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.logins.penalties import FREE

TEXT = f'[server.listener.it]\nprotocol = "imap"\nbind = "{HOST}:0"\n'


@pytest.mark.parametrize(
    ("accounts", "says"),
    [
        (None, "does not exist: nobody can log in until `fastlisten account add NAME"),
        ("[account]\n", "has no account with a password: nobody can log in"),
        (f'[account."{ALICE}"]\n', "has no account with a password: nobody can log in"),
        ("[account\n", "cannot be read: nobody can log in until this is fixed"),
    ],
)
def test_note_at_the_start(tmp_path: Path, accounts: str | None, says: str) -> None:
    with program(tmp_path, TEXT, accounts=accounts) as started:
        until(lambda: says in started.out + started.err, "the note")
        assert started.stop() == 0


def test_failures_are_those_of_smtp_too(tmp_path: Path) -> None:
    """What an address has to wait for is counted for all protocols together."""
    with serve_imap(tmp_path) as server:
        for number in range(FREE):
            (answer,) = server.connect().say(f"LOGIN {ADDRESS} wrong{number}")
            assert answer.startswith(b"NO [AUTHENTICATIONFAILED] ")
        # As smtp's handler does.
        office = PostOffice.enter(str(tmp_path))
        try:
            penalties = office.logins.penalties
            with penalties.lock:
                assert penalties.table.records["127.0.0.1"].failures == FREE
        finally:
            office.leave()
