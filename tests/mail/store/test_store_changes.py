"""Changes since a cursor: what arrived, changed, went; what is too long ago; power losses."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.mail_store import deliver, inbox, index_of

from fastlisten.mail.store import changes as changes_module
from fastlisten.mail.store import folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.changes import changes, prune
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Changes, Flag, FolderNotFoundError, StoreMode

ADD, S, T = StoreMode.ADD, Flag.SEEN, Flag.DELETED


def arrive(index: Index, count: int = 1) -> int:
    for _ in range(count):
        deliver(index.maildir)
    look(index, inbox(index).id)
    return changes(index, inbox(index).id, 0).cursor


def brief(found: Changes) -> tuple[list[int], list[int], list[int], bool]:
    return (
        [one.uid for one in found.arrived],
        [one.uid for one in found.changed],
        list(found.gone),
        found.complete,
    )


def test_everything_in_its_place(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = inbox(index).id
        assert brief(changes(index, box, 0)) == ([], [], [], True)
        first = arrive(index, 4)
        assert brief(changes(index, box, 0)) == ([1, 2, 3, 4], [], [], True)
        assert brief(changes(index, box, first)) == ([], [], [], True)
        store(index, box, [2], ADD, S, ["Word"])
        store(index, box, [3], ADD, T)
        expunge(index, box)
        second = arrive(index, 2)
        store(index, box, [5], ADD, T)
        expunge(index, box)
        found = changes(index, box, first)
        # The fifth came and went in between; who saw it has to be told.
        assert brief(found) == ([6], [2], [3, 5], True)
        assert (found.changed[0].flags, found.changed[0].keywords) == (S, ("Word",))
        assert found.uidnext == 7
        assert brief(changes(index, box, second)) == ([], [], [5], True)
        assert brief(changes(index, box, found.cursor)) == ([], [], [], True)
        assert found.cursor >= max(one.modseq for one in (*found.arrived, *found.changed))


def test_other_folders_do_not_count(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        work = folders.create(index, "Work")
        cursor = changes(index, work.id, 0).cursor
        arrive(index)
        store(index, inbox(index).id, [1], ADD, T)
        expunge(index, inbox(index).id)
        assert changes(index, work.id, cursor) == Changes(cursor, 1, [], [], [])
        folders.delete(index, "Work")
        with pytest.raises(FolderNotFoundError):
            changes(index, work.id, cursor)


@pytest.mark.parametrize("limit", ["KEPT_ROWS", "KEPT_SECONDS"])
def test_what_went_too_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    with index_of(tmp_path) as index:
        box = inbox(index).id
        first = arrive(index, 5)
        store(index, box, [1, 2, 3], ADD, T)
        expunge(index, box)
        prune(index)
        assert brief(changes(index, box, first)) == ([], [], [1, 2, 3], True)
        now = changes(index, box, 0).cursor
        monkeypatch.setattr(changes_module, limit, 0)
        prune(index)
        assert index.query("SELECT count(*) FROM gone") == [(0,)]
        found = changes(index, box, first)
        assert brief(found) == ([], [], [], False)
        assert changes(index, box, now).complete
        assert changes(index, box, 0).complete  # who knows nothing misses nothing


def test_newest_rows_of_what_is_gone_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "KEPT_ROWS", 4)
    with index_of(tmp_path) as index:
        box = inbox(index).id
        arrive(index, 5)
        cursors = []
        for uid in range(1, 6):  # each leaves two rows: message and email
            cursors.append(changes(index, box, 0).cursor)
            store(index, box, [uid], ADD, T)
            expunge(index, box)
        prune(index)
        assert [changes(index, box, one).complete for one in cursors] == [False] * 3 + [True] * 2
        assert changes(index, box, cursors[3]).gone == [4, 5]


def test_after_a_power_loss_everything_counts_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        before = arrive(index, 2)
        with index.locked(), index.transaction() as db:
            db.execute("UPDATE state SET dirty_boot = 'another'")
        # As if this process had been killed: nothing is cleared at the end.
        monkeypatch.setattr(index, "_checkpoint", lambda: None)
    with index_of(tmp_path) as index:
        box = inbox(index).id
        found = changes(index, box, before)
        assert brief(found) == ([], [1, 2], [], False)
        assert {one.modseq for one in found.changed} == {found.cursor}
        assert found.cursor > before
        assert brief(changes(index, box, found.cursor)) == ([], [], [], True)
        assert found.uidnext == 1003
