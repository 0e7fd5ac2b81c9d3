"""Folders without cur/, new/ or tmp/, as backups that skip empty directories restore them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of, settled_look

from fastlisten.mail.store import folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.copying import copy, move
from fastlisten.mail.store.index import Index


def empty_folder(index: Index, missing: tuple[str, ...]) -> int:
    """Make a folder, then remove directories of it; return its id."""
    work = folders.create(index, "Work").id
    for name in missing:
        os.rmdir(f"{index.maildir.path}/.Work/{name}")
    return work


MISSING = [("cur",), ("tmp",), ("new",), ("cur", "new", "tmp")]


@pytest.mark.parametrize("missing", MISSING)
def test_append(tmp_path: Path, missing: tuple[str, ...]) -> None:
    with index_of(tmp_path) as index:
        work = empty_folder(index, missing)
        appending = Appending(index, work)
        appending.begin()
        appending.add(b"x")
        assert list(appending.commit().uids) == [1]
        (path,) = (tmp_path / ".Work" / "cur").iterdir()
        assert path.read_bytes() == b"x"
        check_account(index)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("change", [copy, move])
def test_copy_and_move(
    tmp_path: Path, missing: tuple[str, ...], change: Callable[..., object]
) -> None:
    with index_of(tmp_path) as index:
        deliver(index.maildir, b"x")
        look(index, inbox(index).id)
        work = empty_folder(index, missing)
        change(index, inbox(index).id, [1], work)
        (path,) = (tmp_path / ".Work" / "cur").iterdir()
        assert path.read_bytes() == b"x"
        check_account(index)


def test_absorb(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        deliver(index.maildir, b"x", "1.a")
        os.rmdir(index.maildir.cur)
        assert look(index, inbox(index).id).arrived == 1
        assert os.listdir(index.maildir.cur) == ["1.a:2,"]
        settled_look(index, inbox(index).id)
        assert len(rows_of(index, inbox(index).id)) == 1
        check_account(index)
