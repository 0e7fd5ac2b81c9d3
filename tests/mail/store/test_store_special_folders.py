"""Folders with a special use: made in a new account, found in another, and once only."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from support.forked import MAY_HAVE_THREADS
from support.mail_store import deliver, index_of

from fastlisten.mail.maildir.folder_names import directory_of
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.folders import create, delete, folders
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.special_folders import ROLES, prepare

NAMES = {role: role for role in ROLES}


def seen(index: Index) -> set[tuple[str, str, bool]]:
    return {(one.name, one.role, one.subscribed) for one in folders(index)}


ALL = {("INBOX", "", False), *((role, role, True) for role in ROLES)}


def test_new_account_gets_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deliver(str(tmp_path))
    with index_of(tmp_path) as index:
        prepare(index, NAMES)
        assert seen(index) == ALL
    assert (tmp_path / ".Archive" / "maildirfolder").exists()
    assert caplog.records == []


def test_names_are_those_of_the_configuration(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        prepare(index, {"Sent": "Gesendet", "Trash": "Mail/Papierkorb"})
        assert seen(index) == {
            ("INBOX", "", False),
            ("Gesendet", "Sent", True),
            ("Mail", "", False),
            ("Mail/Papierkorb", "Trash", True),
        }


def test_index_that_was_made_by_somebody_else(tmp_path: Path) -> None:
    """Who opens it first may not know the names: a command, a delivery."""
    with index_of(tmp_path):
        pass
    with index_of(tmp_path) as index:
        prepare(index, NAMES)
        assert seen(index) == ALL


def test_folders_are_made_once(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        prepare(index, NAMES)
        delete(index, "Archive")
        prepare(index, NAMES)
        assert "Archive" not in {name for name, _, subscribed in seen(index) if not subscribed}
        assert not (tmp_path / ".Archive").exists()
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    with index_of(tmp_path) as index:
        prepare(index, NAMES)
        assert not (tmp_path / ".Archive").exists()
        assert ("Sent", "Sent", True) in seen(index)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["Work"], {}),
        (["Sent Items", "Drafts"], {"Sent": "Sent Items", "Drafts": "Drafts"}),
        (["Sent", "Sent Items"], {"Sent": "Sent"}),
        (
            ["Sent Messages", "Deleted Messages"],
            {"Sent": "Sent Messages", "Trash": "Deleted Messages"},
        ),
        (["Junk E-mail", "Deleted Items"], {"Junk": "Junk E-mail", "Trash": "Deleted Items"}),
        (["SPAM", "archives"], {"Junk": "SPAM", "Archive": "archives"}),
        (["INBOX/Sent", "INBOX/Spam"], {"Sent": "INBOX/Sent", "Junk": "INBOX/Spam"}),
        (["INBOX/Sent", "Sent"], {"Sent": "Sent"}),
        (["INBOX/Drafts", "Drafts"], {"Drafts": "Drafts"}),
        (["Gesendet", "Sent"], {"Sent": "Gesendet"}),
        (["Work/Sent"], {}),
    ],
)
def test_folders_that_are_there_get_their_use(
    tmp_path: Path, there: list[str], expected: dict[str, str]
) -> None:
    for name in there:
        Maildir(f"{tmp_path}/{directory_of(name)}").prepare()
    with index_of(tmp_path) as index:
        prepare(index, {**NAMES, "Sent": "Gesendet"})
        found = folders(index)
        assert {one.role: one.name for one in found if one.role} == expected
        assert {one.name for one in found if one.exists} == {"INBOX", *there}
        assert not any(one.subscribed for one in found)


def test_use_that_a_folder_has_stays(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        create(index, "Elsewhere", "Sent")
        create(index, "Sent Items")
        prepare(index, NAMES)
        assert {one.role: one.name for one in folders(index) if one.role} == {"Sent": "Elsewhere"}


def test_folder_that_cannot_be_made_is_made_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with index_of(tmp_path) as index:
        (tmp_path / ".Junk").write_text("")
        with caplog.at_level(logging.WARNING):
            prepare(index, NAMES)
        assert "cannot make Junk" in caplog.text
        (tmp_path / ".Junk").unlink()
        prepare(index, NAMES)
        assert seen(index) == ALL


@MAY_HAVE_THREADS
def test_two_processes_make_them_once(tmp_path: Path) -> None:
    ready, go = os.pipe()
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(go)
                os.read(ready, 1)  # ends when the parent lets both begin
                with index_of(tmp_path) as index:
                    prepare(index, NAMES)
                    status = 0 if seen(index) == ALL else 2
            finally:
                os._exit(status)
        children.append(pid)
    os.close(ready)
    os.close(go)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    with index_of(tmp_path) as index:
        assert seen(index) == ALL
        assert index.query("SELECT count(*) FROM gone") == [(0,)]
