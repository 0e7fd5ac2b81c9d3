"""Old messages in Trash and Junk go: by the time since they came there, once a day, in slices."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of

from fastlisten.mail.store import autoexpunge
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.autoexpunge import EVERY, claim, expire
from fastlisten.mail.store.copying import move
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import create
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode

DAY = 86400.0


def uids(index: Index, folder: int) -> list[int]:
    return [uid for uid, *_ in rows_of(index, folder)]


def aged(index: Index, folder: int, days: float, *uids: int) -> None:
    """Have messages come earlier."""
    with index.locked(), index.transaction() as db:
        for uid in uids:
            db.execute(
                "UPDATE message SET createseq = ? WHERE folder = ? AND uid = ?",
                (int((time.time() - days * DAY) * 1e6), folder, uid),
            )


def test_by_the_time_since_a_message_came_into_the_folder(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        trash = create(index, "Deleted Items", "Trash").id
        box = inbox(index).id
        for number in range(1, 5):
            name = deliver(index.maildir, b"m", f"{number}.a")
            os.utime(f"{tmp_path}/new/{name}", (1, 1))  # INTERNALDATE: 1970
        look(index, box)
        aged(index, box, 50, 1, 2, 3, 4)
        move(index, box, [1, 2, 3], trash)
        aged(index, trash, 31, 1)
        aged(index, trash, 29, 2)
        store(index, trash, [1], StoreMode.ADD, Flag.FLAGGED)
        assert expire(index, "Trash", 30 * DAY) == 1
        assert expire(index, "Trash", 30 * DAY) == 0
        assert expire(index, "Junk", 30 * DAY) == 0
        assert (uids(index, trash), uids(index, box)) == ([2, 3], [4])
        check_account(index)


def test_a_slice_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoexpunge, "LARGEST_SLICE", 2)
    with index_of(tmp_path) as index:
        junk = create(index, "Junk", "Junk").id
        for number in range(5):
            deliver(f"{tmp_path}/.Junk", b"m", f"{number}.a")
        look(index, junk)
        aged(index, junk, 2, *range(1, 6))
        assert [expire(index, "Junk", DAY) for _ in range(4)] == [2, 2, 1, 0]
        check_account(index)


def test_once_a_day_over_processes(tmp_path: Path) -> None:
    with index_of(tmp_path) as one, index_of(tmp_path) as other:
        assert [claim(one), claim(other), claim(one)] == [True, False, False]
        mark = tmp_path / "index.autoexpunge"
        os.utime(mark, (time.time() - EVERY - 1,) * 2)
        assert [claim(other), claim(one)] == [True, False]
        os.utime(mark, (time.time() + 5 * EVERY,) * 2)  # the clock was wrong
        assert [claim(other), claim(one)] == [True, False]
