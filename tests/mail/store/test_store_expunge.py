"""EXPUNGE: what goes, what another program has undeleted, files that cannot be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mail_store import (
    check_account,
    deliver,
    inbox,
    index_of,
    rows_of,
    settled_look,
    uids_of,
)

from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import status
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode


def filled(index: Index, deleted: list[int]) -> int:
    """Put four messages into INBOX, of which some are deleted; return its id."""
    for number in (1, 2, 3, 4):
        deliver(index.maildir, name=f"{number}.a")
    box = inbox(index).id
    look(index, box)
    store(index, box, deleted, StoreMode.ADD, Flag.DELETED)
    return box


def test_deleted_messages_go(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index, [1, 3])
        before = status(index, inbox(index)).highestmodseq
        assert expunge(index, box) == [1, 3]
        assert sorted(os.listdir(index.maildir.cur)) == ["2.a:2,", "4.a:2,"]
        assert status(index, inbox(index)).highestmodseq > before
        gone = index.query("SELECT uid, modseq FROM gone WHERE type = 1 AND folder = ?", (box,))
        assert gone == [(uid, status(index, inbox(index)).highestmodseq) for uid in (1, 3)]
        assert index.query("SELECT count(*) FROM gone WHERE type = 2") == [(2,)]
        assert expunge(index, box) == []
        check_account(index)
        deliver(index.maildir, name="1.a")  # the name of one that is gone
        look(index, box)
        assert uids_of(index, box) == {"2.a": 2, "4.a": 4, "1.a": 5}


def test_only_those_of_the_command(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index, [1, 3])
        assert expunge(index, box, [2, 3, 9]) == [3]
        assert [uid for uid, *_ in rows_of(index, box)] == [1, 2, 4]


def test_message_that_another_program_undeleted_stays(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index, [1, 3])
        cur = Path(index.maildir.cur)
        (cur / "1.a:2,T").rename(cur / "1.a:2,S")
        (cur / "3.a:2,T").rename(cur / "3.a:2,ST")
        assert expunge(index, box) == [3]
        assert rows_of(index, box)[0] == (1, "1.a", Flag.SEEN, "")
        settled_look(index, box)
        check_account(index)


def test_file_that_cannot_be_removed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        box = filled(index, [1])

        def failing(path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        with monkeypatch.context() as patch:
            patch.setattr("fastlisten.mail.store.pending.os.unlink", failing)
            assert expunge(index, box) == [1]
            assert os.path.exists(f"{index.maildir.cur}/1.a:2,T")
            found = look(index, box, thorough=True)
            assert found.arrived == 0
            assert [uid for uid, *_ in rows_of(index, box)] == [2, 3, 4]
        settled_look(index, box, thorough=True)
        assert not os.path.exists(f"{index.maildir.cur}/1.a:2,T")
        check_account(index)
