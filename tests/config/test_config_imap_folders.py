"""Names of folders with a special use, which new accounts get."""

from __future__ import annotations

import pytest
from support.config import listener, listener_problem

IMAP = 'protocol = "imap"\nbind = "127.0.0.1:143"\n'


def test_names() -> None:
    it = listener(IMAP + 'imap.folders.sent = "Mail/Gesendet"\nimap.folders.archive = false')
    uses = ("drafts", "sent", "junk", "trash", "archive")
    names = [it[f"imap.folders.{use}"] for use in uses]
    assert names == ["Drafts", "Mail/Gesendet", "Junk", "Trash", None]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Mail//Sent", "a level without a name"),
        ("x" * 300, "too long"),
        ("inbox", "INBOX has a use of its own"),
        ("Drafts", "this is the name of imap.folders.drafts too"),
        ("", "empty"),
    ],
)
def test_names_that_no_folder_can_have(name: str, words: str) -> None:
    problem = listener_problem(IMAP + f'imap.folders.sent = "{name}"')
    assert problem.key == "server.listener.it.imap.folders.sent"
    assert words in problem.message
