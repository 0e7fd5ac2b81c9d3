"""COPY and MOVE: identity, names, flags that others set, other filesystems, failures."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import (
    check_account,
    deliver,
    inbox,
    index_of,
    rows_of,
    settled_look,
)

from fastlisten.mail.store import folders, selection
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.copying import copy, move
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, FolderNotFoundError, StoreMode


def filled(index: Index) -> tuple[int, int]:
    """Put three messages into INBOX; return its id and that of another folder."""
    for number in (1, 2, 3):
        deliver(index.maildir, b"m%d" % number, name=f"{number}.a")
    box = inbox(index).id
    look(index, box)
    store(index, box, [2], StoreMode.ADD, Flag.SEEN, ["Word"])
    return box, folders.create(index, "Work").id


def emails(index: Index, folder: int) -> list[int]:
    rows = index.query("SELECT email FROM message WHERE folder = ? ORDER BY uid", (folder,))
    return [email for (email,) in rows]


def test_copy_is_a_link_with_everything(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        copied = copy(index, box, [2, 3, 9], work)
        assert (list(copied.sources), list(copied.targets)) == ([2, 3], [1, 2])
        assert copied.uidvalidity == folders.find(index, "Work").uidvalidity
        assert [row[2:] for row in rows_of(index, work)] == [(Flag.SEEN, "Word"), (0, "")]
        assert emails(index, work) == emails(index, box)[1:]
        names = {name for _, name, _, _ in rows_of(index, work)}
        assert names.isdisjoint({"1.a", "2.a", "3.a"})
        for path in (tmp_path / ".Work" / "cur").iterdir():
            assert path.stat().st_nlink == 2
        assert index.query("SELECT name FROM keyword WHERE folder = ?", (work,)) == [("Word",)]
        check_account(index)


def test_copy_into_the_same_folder(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, _ = filled(index)
        assert list(copy(index, box, [1, 2], box).targets) == [4, 5]
        assert settled_look(index, box, thorough=True).arrived == 0
        check_account(index)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK])
def test_copy_where_there_can_be_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        os.utime(f"{index.maildir.cur}/2.a:2,S", (5, 946_684_800))

        def no_link(source: str, target: str) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", no_link)
        copy(index, box, [2], work)
        (path,) = (tmp_path / ".Work" / "cur").iterdir()
        assert (path.read_bytes(), path.stat().st_nlink) == (b"m2", 1)
        assert path.stat().st_mtime == 946_684_800
        assert path.stat().st_mode & 0o777 == 0o600
        check_account(index)


def test_failed_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        real, calls = os.link, []

        def failing(source: str, target: str) -> None:
            calls.append(target)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "link", failing)
        with pytest.raises(OSError, match="No space"):
            copy(index, box, [1, 2, 3], work)
        monkeypatch.undo()
        assert rows_of(index, work) == []
        assert os.listdir(tmp_path / ".Work" / "tmp") == []
        check_account(index)


def test_copy_of_messages_that_others_flagged_or_removed(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        cur = Path(index.maildir.cur)
        (cur / "1.a:2,").rename(cur / "1.a:2,F")
        (cur / "3.a:2,").unlink()
        settled_look(index, box)
        assert list(copy(index, box, [1, 2, 3], work).sources) == [1, 2]
        assert rows_of(index, work)[0][2] == Flag.FLAGGED


def test_move(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        before = emails(index, box)
        moved = move(index, box, [2, 3, 9], work)
        assert (list(moved.sources), list(moved.targets)) == ([2, 3], [1, 2])
        assert [row[1:] for row in rows_of(index, work)] == [
            ("2.a", Flag.SEEN, "Word"),
            ("3.a", 0, ""),
        ]
        assert emails(index, work) == before[1:]
        assert sorted(os.listdir(tmp_path / ".Work" / "cur")) == ["2.a:2,S", "3.a:2,"]
        assert os.listdir(index.maildir.cur) == ["1.a:2,"]
        gone = index.query("SELECT uid FROM gone WHERE type = 1 AND folder = ?", (box,))
        assert gone == [(2,), (3,)]
        assert index.query("SELECT count(*) FROM gone WHERE type = 2") == [(0,)]
        check_account(index)


def test_move_never_replaces_a_file(tmp_path: Path) -> None:
    """Of another message with the same name, known to the index or not."""
    with index_of(tmp_path) as index:
        box, work = filled(index)
        deliver(str(tmp_path / ".Work"), b"other 2", "2.a")
        look(index, work)
        theirs = tmp_path / ".Work" / "cur" / "3.a:2,"
        theirs.write_bytes(b"other 3")
        move(index, box, [2, 3], work)
        settled_look(index, work, thorough=True)
        contents = {path.read_bytes() for path in (tmp_path / ".Work" / "cur").iterdir()}
        assert contents == {b"other 2", b"other 3", b"m2", b"m3"}
        assert len(rows_of(index, work)) == 4
        check_account(index)


def test_move_takes_flags_that_another_program_set(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        cur = Path(index.maildir.cur)
        (cur / "1.a:2,").rename(cur / "1.a:2,FPz")
        move(index, box, [1], work)
        assert os.listdir(tmp_path / ".Work" / "cur") == ["1.a:2,FPz"]
        check_account(index)


def test_move_into_the_same_folder_gives_new_uids(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box, _ = filled(index)
        before = emails(index, box)
        assert list(move(index, box, [1, 2], box).targets) == [4, 5]
        assert [uid for uid, *_ in rows_of(index, box)] == [3, 4, 5]
        assert emails(index, box) == [before[2], *before[:2]]
        check_account(index)


def test_move_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LARGEST_SLICE", 2)
    with index_of(tmp_path) as index:
        box, work = filled(index)
        assert list(move(index, box, [1, 2, 3], work).targets) == [1, 2, 3]
        assert list(copy(index, work, [1, 2, 3], box).targets) == [4, 5, 6]
        check_account(index)


@pytest.mark.parametrize("change", [copy, move])
def test_target_that_has_been_deleted(tmp_path: Path, change: Callable[..., object]) -> None:
    with index_of(tmp_path) as index:
        box, work = filled(index)
        folders.delete(index, "Work")
        with pytest.raises(FolderNotFoundError):
            change(index, box, [1], work)
        assert len(rows_of(index, box)) == 3
        check_account(index)
