"""Full and read-only filesystems: work is done as a whole or refused, and reading goes on.

Rules of this file: a real filesystem, in a mount namespace of its own; what is tried there, and
what must be true, is in support/small_disk.py.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.mail_store import check_account, inbox, index_of
from support.small_disk import on_small_disk

from fastlisten.mail.store import pending
from fastlisten.mail.store.append import Appending

WORK = ("append", "store", "expunge", "copy", "move", "create", "absorb", "select")


@pytest.mark.parametrize("work", WORK)
def test_full_disk(tmp_path: Path, work: str) -> None:
    on_small_disk(work, tmp_path, step=6)


@pytest.mark.soak
@pytest.mark.parametrize("work", WORK)
def test_full_disk_with_each_number_of_pages(tmp_path: Path, work: str) -> None:
    on_small_disk(work, tmp_path)


def test_read_only(tmp_path: Path) -> None:
    on_small_disk("read_only", tmp_path)


def test_work_that_is_done_but_cannot_be_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is there, so the client must be told so, or it would append it again."""

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with index_of(tmp_path) as index:
        with monkeypatch.context() as patch:
            patch.setattr(pending, "_clear", full)
            appending = Appending(index, inbox(index).id)
            appending.begin()
            appending.add(b"x")
            assert list(appending.commit().uids) == [1]
            assert index.query("SELECT count(*) FROM pending") == [(1,)]
        with index.locked():
            pass
        check_account(index)
