"""Folders: names, CREATE, DELETE, RENAME, subscriptions, roles, and what other programs do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of

from fastlisten.mail.store import folders, pending
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.folders import create, delete, find, rename, status, subscribe
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import (
    FolderExistsError,
    FolderNotFoundError,
    FolderRefusedError,
)


def names(index: Index) -> list[str]:
    return [one.name for one in folders.folders(index) if one.exists]


def test_inbox_in_any_case_is_the_maildir_itself(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        assert find(index, "inbox") == find(index, "INBOX") == find(index, "InBox")
        assert names(index) == ["INBOX"]
        with pytest.raises(FolderExistsError):
            create(index, "Inbox")
        with pytest.raises(FolderRefusedError):
            delete(index, "INBOX")
        os.makedirs(tmp_path / ".INBOX" / "cur")  # which no client can name
        assert names(index) == [".INBOX", "INBOX"]
        assert find(index, ".INBOX").directory == ".INBOX"


def test_created_folder(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        for name in ("Work", "Work/Täglich", "v1.2", "a & b"):
            create(index, name)
            with pytest.raises(FolderExistsError):
                create(index, name)
        assert names(index) == sorted(["INBOX", "Work", "Work/Täglich", "v1.2", "a & b"])
        assert (tmp_path / ".Work.T&AOQ-glich" / "maildirfolder").is_file()
        assert (tmp_path / ".v1&AC4-2" / "new").is_dir()
        assert {one.name for one in folders.folders(index) if one.subscribed} == set(
            names(index)
        ) - {"INBOX"}
        validities = index.query("SELECT uidvalidity FROM folder")
        assert len(set(validities)) == 5


def test_decomposed_name_is_the_composed_one(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        create(index, "A\u0308rger")
        assert names(index) == ["INBOX", "\u00c4rger"]
        assert find(index, "A\u0308rger") == find(index, "\u00c4rger")


@pytest.mark.parametrize("name", ["", "a//b", "/a", "a/", "x" * 255, "\ud800"])
def test_refused_name(tmp_path: Path, name: str) -> None:
    with index_of(tmp_path) as index:
        with pytest.raises(FolderRefusedError):
            create(index, name)
        with pytest.raises(FolderNotFoundError):
            find(index, name)
        assert names(index) == ["INBOX"]


def test_directory_without_a_valid_name_is_listed_as_it_is_called(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        os.makedirs(tmp_path / ".a&b.c" / "cur")
        os.makedirs(os.fsencode(tmp_path) + b"/.caf\xe9/cur")
        deliver(str(tmp_path / ".a&b.c"))
        assert names(index) == [".a&b.c", "INBOX"]
        folder = find(index, ".a&b.c")
        assert look(index, folder.id).arrived == 1
        rename(index, ".a&b.c", "Better")
        assert names(index) == ["Better", "INBOX"]


def test_deleted_folder(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        work = create(index, "Work")
        create(index, "Work/Below")
        deliver(str(tmp_path / ".Work"))
        look(index, work.id)
        delete(index, "Work")
        assert names(index) == ["INBOX", "Work/Below"]
        with pytest.raises(FolderNotFoundError):
            status(index, work)
        with pytest.raises(FolderNotFoundError):
            delete(index, "Work")
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
            ".Work.Below",
            "cur",
            "new",
            "tmp",
        ]
        # The name above another folder, and the subscribed one, are still listed.
        (above,) = [one for one in folders.folders(index) if one.name == "Work"]
        assert (above.exists, above.subscribed) == (False, True)
        assert index.query("SELECT count(*) FROM message") == [(0,)]
        again = create(index, "Work")
        assert again.uidvalidity > work.uidvalidity
        assert again.id != work.id
        check_account(index)


def test_large_folder_is_deleted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index_of(tmp_path) as index:
        work = create(index, "Work")
        for _ in range(7):
            deliver(str(tmp_path / ".Work"))
        look(index, work.id)
        monkeypatch.setattr(pending, "LARGEST_SLICE", 2)
        delete(index, "Work")
        assert index.query("SELECT count(*) FROM message") == [(0,)]
        assert index.query("SELECT count(*) FROM email") == [(0,)]
        check_account(index)


def test_renamed_folder_keeps_everything(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        work = create(index, "Work", "Archive")
        below = create(index, "Work/Below/Deep")
        create(index, "Workshop")
        deliver(str(tmp_path / ".Work"))
        look(index, work.id)
        rows = rows_of(index, work.id)
        rename(index, "Work", "Old/Wörk")
        assert names(index) == ["INBOX", "Old/Wörk", "Old/Wörk/Below/Deep", "Workshop"]
        moved = find(index, "Old/Wörk")
        assert (moved.id, moved.uidvalidity) == (work.id, work.uidvalidity)
        assert find(index, "Old/Wörk/Below/Deep").id == below.id
        assert rows_of(index, work.id) == rows
        (listed,) = [one for one in folders.folders(index) if one.name == "Old/Wörk"]
        assert (listed.role, listed.subscribed) == ("Archive", True)
        check_account(index)


def test_name_that_only_has_folders_below_is_renamed(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        below = create(index, "Work/Below")
        create(index, "Work/Other/Deep")
        create(index, "Workshop")
        rename(index, "Work", "Old")
        assert names(index) == ["INBOX", "Old/Below", "Old/Other/Deep", "Workshop"]
        assert find(index, "Old/Below").id == below.id
        for new, error in (("Workshop", FolderExistsError), ("Old/Below", FolderExistsError)):
            with pytest.raises(error):
                rename(index, "Old", new)
        for old in ("Work", "Ol", "Old/"):
            with pytest.raises((FolderNotFoundError, FolderRefusedError)):
                rename(index, old, "New")
        check_account(index)


def test_refused_renames(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        create(index, "a")
        create(index, "a/" + "x" * 100)
        create(index, "b")
        before = names(index)
        for old, new, error in (
            ("missing", "c", FolderNotFoundError),
            ("a", "b", FolderExistsError),
            ("a", "INBOX", FolderExistsError),
            ("a", "a/c", FolderRefusedError),
            ("a", "a", FolderRefusedError),
            ("a", "y" * 200, FolderRefusedError),  # too long for the one below
            ("a", "c//d", FolderRefusedError),
        ):
            with pytest.raises(error):
                rename(index, old, new)
            assert names(index) == before
        (tmp_path / ".c").mkdir()  # somebody else's directory
        with pytest.raises(FolderExistsError):
            rename(index, "a", "c")
        check_account(index)


def test_directory_that_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index_of(tmp_path) as index:
        create(index, "a")

        def failing(source: str, target: str) -> None:
            raise PermissionError(13, "Permission denied", source)

        monkeypatch.setattr("fastlisten.mail.store.pending.rename", failing)
        with pytest.raises(PermissionError):
            rename(index, "a", "b")
        assert names(index) == ["INBOX", "a"]
        check_account(index)


def test_folders_that_other_programs_make_rename_and_remove(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        os.makedirs(tmp_path / ".Theirs" / "cur")
        assert names(index) == ["INBOX", "Theirs"]
        deliver(str(tmp_path / ".Theirs"))
        theirs = find(index, "Theirs")
        look(index, theirs.id)
        (tmp_path / ".Theirs").rename(tmp_path / ".Other")
        assert names(index) == ["INBOX", "Other"]
        assert find(index, "Other").uidvalidity > theirs.uidvalidity
        assert rows_of(index, theirs.id) == []
        shutil.rmtree(tmp_path / ".Other")
        assert names(index) == ["INBOX"]
        with pytest.raises(FolderNotFoundError):
            find(index, "Other")
        check_account(index)


def test_subscriptions(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        subscribe(index, "inbox", True)
        subscribe(index, "Not/There", True)
        subscribe(index, "Not/There", True)
        found = {one.name: (one.exists, one.subscribed) for one in folders.folders(index)}
        assert found == {"INBOX": (True, True), "Not": (False, False), "Not/There": (False, True)}
        subscribe(index, "Not/There", False)
        subscribe(index, "Never", False)
        assert [one.name for one in folders.folders(index)] == ["INBOX"]


def test_a_role_is_that_of_one_folder(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        create(index, "Sent", "Sent")
        create(index, "Sent Items", "Sent")
        found = {one.name: one.role for one in folders.folders(index)}
        assert found == {"INBOX": "", "Sent": "", "Sent Items": "Sent"}


def test_two_processes_see_each_others_folders(tmp_path: Path) -> None:
    with index_of(tmp_path) as index, index_of(tmp_path) as other:
        create(index, "a")
        assert find(other, "a") == find(index, "a")
        rename(other, "a", "b")
        assert find(index, "b").id == find(other, "b").id
        assert inbox(index) == inbox(other)
        delete(index, "b")
        with pytest.raises(FolderNotFoundError):
            find(other, "b")
