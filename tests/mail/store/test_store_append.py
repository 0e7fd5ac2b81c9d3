"""APPEND: octets, flags, dates; several at once; failures leave nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.mail_store import check_account, inbox, index_of, rows_of, settled_look

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import files, folders
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, FolderNotFoundError


def stored(index: Index) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(index.maildir.cur).iterdir())]


def leftovers(index: Index) -> list[str]:
    return os.listdir(index.maildir.tmp)


def test_messages_are_appended_in_order(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        appending = Appending(index, inbox(index).id)
        appending.begin(Flag.SEEN | Flag.DRAFT, ["b", "A", "a"], 946_684_799)
        for piece in (b"Subject: one\r\n", b"", b"\r\n\0binary"):
            appending.add(piece)
        appending.begin()
        appending.add(b"two")
        assert rows_of(index, inbox(index).id) == []
        appended = appending.commit()
        assert appended.uidvalidity == inbox(index).uidvalidity
        assert list(appended.uids) == [1, 2]
        assert stored(index) == [b"Subject: one\r\n\r\n\0binary", b"two"]
        rows = rows_of(index, inbox(index).id)
        assert [row[2:] for row in rows] == [(Flag.SEEN | Flag.DRAFT, "A b"), (0, "")]
        assert index.query("SELECT date FROM email ORDER BY id")[0] == (946_684_799,)
        first = f"{index.maildir.cur}/{rows[0][1]}:2,DS"
        assert int(os.stat(first).st_mtime) == 946_684_799
        assert os.stat(first).st_mode & 0o777 == 0o600
        assert leftovers(index) == []
        check_account(index)


def test_aborted_append_leaves_nothing(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        appending = Appending(index, inbox(index).id)
        appending.begin()
        appending.add(b"x")
        appending.begin()
        appending.add(b"y")
        assert len(leftovers(index)) == 2
        appending.abort()
        assert leftovers(index) == []
        appending.abort()
        assert list(Appending(index, inbox(index).id).commit().uids) == []
        assert rows_of(index, inbox(index).id) == []


def test_folder_deleted_meanwhile(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        folder = folders.create(index, "Work")
        appending = Appending(index, folder.id)
        appending.begin()
        appending.add(b"x")
        folders.delete(index, "Work")
        with pytest.raises((FolderNotFoundError, FileNotFoundError)):
            appending.commit()
        with pytest.raises(FolderNotFoundError):
            Appending(index, folder.id)
        check_account(index)


@pytest.mark.parametrize("call", ["rename", "sync_directory"])
def test_failure_at_the_end_takes_all_of_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The second of three cannot be renamed; or the directory cannot be synced."""
    with index_of(tmp_path) as index:
        appending = Appending(index, inbox(index).id)
        for number in range(3):
            appending.begin()
            appending.add(b"%d" % number)
        if call == "rename":
            real, calls = files.rename_into, []

            def failing(box: Maildir, source: str, target: str) -> None:
                calls.append(source)
                if len(calls) == 2:
                    raise OSError(errno.ENOSPC, "No space left on device", source)
                real(box, source, target)

            monkeypatch.setattr("fastlisten.mail.store.pending.rename_into", failing)
        else:

            def no_sync(path: str) -> None:
                raise OSError(errno.ENOSPC, "No space left on device", path)

            monkeypatch.setattr("fastlisten.mail.store.publish.sync_directory", no_sync)
        with pytest.raises(OSError, match="No space left"):
            appending.commit()
        monkeypatch.undo()
        assert rows_of(index, inbox(index).id) == []
        assert leftovers(index) == []
        settled_look(index, inbox(index).id)
        assert stored(index) == []
        check_account(index)


def test_files_and_directory_are_synced_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        synced: list[str] = []
        real = os.fsync

        def noting(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            real(fd)

        monkeypatch.setattr(os, "fsync", noting)
        appending = Appending(index, inbox(index).id)
        appending.begin()
        appending.add(b"x")
        appending.commit()
        (name,) = (name for _, name, _, _ in rows_of(index, inbox(index).id))
        assert synced == [f"{index.maildir.tmp}/{name}", index.maildir.cur]
