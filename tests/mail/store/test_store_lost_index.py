"""An index that is damaged or deleted: files are found again, the rest comes from the snapshot."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of, settled_look

from fastlisten.mail.store import folders, index_snapshot
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import create, find, subscribe
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode


def fill(index: Index) -> None:
    """Three messages, of which two have keywords; a folder with a role; a subscription."""
    for number in (1, 2, 3):
        deliver(index.maildir, name=f"{number}.a")
    box = inbox(index).id
    look(index, box)
    store(index, box, [1], StoreMode.ADD, Flag.SEEN, ["Word", "$Junk"])
    work = create(index, "Wörk", "Archive")
    deliver(f"{index.maildir.path}/{work.directory}", name="4.a")
    look(index, work.id)
    store(index, work.id, [1], StoreMode.ADD, Flag.FLAGGED, ["Other"])
    subscribe(index, "Not/There", True)


def delete(root: Path) -> None:
    for path in root.glob("index.db*"):
        path.unlink()


def overwrite(root: Path) -> None:
    (root / "index.db").write_bytes(b"no database" * 1000)


def cut(root: Path) -> None:
    os.truncate(root / "index.db", 5000)


@pytest.mark.parametrize("lose", [delete, overwrite, cut])
def test_lost_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lose: Callable[..., object]
) -> None:
    with index_of(tmp_path) as index:
        fill(index)
        validity = inbox(index).uidvalidity
    assert stat.S_IMODE(os.stat(tmp_path / "index.snapshot").st_mode) == 0o600
    lose(tmp_path)
    with caplog.at_level(logging.WARNING, "fastlisten.mail"), index_of(tmp_path) as index:
        assert inbox(index).uidvalidity > validity
        for (folder,) in index.query("SELECT id FROM folder"):
            settled_look(index, folder)
        assert rows_of(index, inbox(index).id) == [
            (1, "1.a", Flag.SEEN, "$Junk Word"),
            (2, "2.a", 0, ""),
            (3, "3.a", 0, ""),
        ]
        work = find(index, "Wörk").id
        assert rows_of(index, work) == [(1, "4.a", Flag.FLAGGED, "Other")]
        assert index.query("SELECT name FROM keyword WHERE folder = ?", (work,)) == [("Other",)]
        found = {one.name: (one.role, one.subscribed) for one in folders.folders(index)}
        assert found["Wörk"] == ("Archive", True)
        assert found["Not/There"] == ("", True)
        check_account(index)
        assert index.query("SELECT count(*) FROM arrival") == [(0,)]
        with index_of(tmp_path):
            pass
    said = [record.getMessage() for record in caplog.records]
    assert sum("the index was lost" in text for text in said) == 1
    assert (lose is delete) == (not (tmp_path / "index.db.damaged").exists())


def test_first_index_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fastlisten.mail"):
        for _ in range(2):
            with index_of(tmp_path) as index:
                fill(index) if not index.query("SELECT 1 FROM message") else None
    assert caplog.records == []


def test_snapshot_is_made_again_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "index.snapshot"

    def keywords() -> int:
        with sqlite3.connect(path) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM message WHERE keywords != ''")
        connection.close()
        return int(count)

    with index_of(tmp_path):
        pass
    assert keywords() == 0
    with index_of(tmp_path) as index:
        fill(index)
    assert keywords() == 0
    past = time.time() - index_snapshot.KEPT_FOR - 1
    os.utime(path, (past, past))
    with index_of(tmp_path):
        pass
    assert keywords() == 2
    assert sorted(path.name for path in tmp_path.glob("index*")) == [
        "index.db",
        "index.lock",
        "index.snapshot",
    ]


def test_damaged_snapshot_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with index_of(tmp_path) as index:
        fill(index)
    delete(tmp_path)
    (tmp_path / "index.snapshot").write_bytes(b"x" * 5000)
    with index_of(tmp_path) as index:
        settled_look(index, inbox(index).id)
        assert len(rows_of(index, inbox(index).id)) == 3
    assert "index.snapshot cannot be read" in caplog.text


def test_snapshot_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "index.snapshot.new").mkdir()
    with index_of(tmp_path) as index:
        fill(index)
    assert "index.snapshot cannot be written" in caplog.text
    with index_of(tmp_path) as index:
        check_account(index)
