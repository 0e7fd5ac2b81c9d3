"""A new index: other UIDs under another UIDVALIDITY, the same mail, and sessions that notice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, facts, inbox, index_of, rows_of, settled_look

from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import create, find, folders, subscribe
from fastlisten.mail.store.interface import Flag, FolderNotFoundError, StoreMode
from fastlisten.mail.store.rebuild import rebuild


def fill(place: Path) -> int:
    """Make an account with three messages, of which one is gone; return its UIDVALIDITY."""
    with index_of(place) as index:
        box = inbox(index)
        for number in (1, 2, 3):
            deliver(index.maildir, b"m%d" % number, f"{number}.a")
        look(index, box.id)
        store(index, box.id, [2], StoreMode.ADD, Flag.SEEN, ["Word"])
        create(index, "Sent items", "Sent")
        create(index, "Quiet")
        subscribe(index, "Quiet", subscribed=False)
        os.unlink(f"{place}/cur/1.a:2,")
        settled_look(index, box.id, thorough=True)
        return box.uidvalidity


def test_what_stays_and_what_is_new(tmp_path: Path) -> None:
    before = fill(tmp_path)
    with index_of(tmp_path) as index:
        other = find(index, "Quiet").uidvalidity
        rebuild(index)
        box = inbox(index)
        assert box.uidvalidity > max(before, other)
        assert rows_of(index, box.id) == [(1, "2.a", int(Flag.SEEN), "Word"), (2, "3.a", 0, "")]
        roles = {one.name: (one.role, one.subscribed) for one in folders(index)}
        assert roles["Sent items"] == ("Sent", True)
        assert roles["Quiet"] == ("", False)
        assert len({find(index, name).uidvalidity for name in roles}) == len(roles)
        check_account(index)
        last = max(find(index, name).uidvalidity for name in roles)
        rebuild(index)
        assert inbox(index).uidvalidity > last


def test_other_processes_notice(tmp_path: Path) -> None:
    fill(tmp_path)
    with index_of(tmp_path) as open_before, index_of(tmp_path) as index:
        folder = inbox(open_before).id
        memory = os.stat(tmp_path / "index.db-shm").st_ino
        rebuild(index)
        # What is open must not share its memory with the new one, or both read nonsense.
        assert os.stat(tmp_path / "index.db-shm").st_ino != memory
        assert open_before.query("SELECT count(*) FROM message") == [(2,)]
        deliver(index.maildir, b"m4", "4.a")
        assert look(open_before, folder).arrived == 0  # there is no such folder any more
        box = inbox(open_before)
        assert box.id != folder
        assert look(open_before, box.id).arrived == 1
        assert [name for _, name, *_ in rows_of(index, box.id)] == ["2.a", "3.a", "4.a"]
        (first,) = facts(open_before, box.id, [1])
        assert first.size == 2
    with index_of(tmp_path) as index:
        check_account(index)
        assert len(rows_of(index, inbox(index).id)) == 3


def test_nothing_is_removed_unless_the_snapshot_is_there(tmp_path: Path) -> None:
    before = fill(tmp_path)
    (tmp_path / "index.snapshot.new").mkdir()
    with index_of(tmp_path) as index:
        with pytest.raises(OSError, match="directory"):
            rebuild(index)
        assert inbox(index).uidvalidity == before
        with pytest.raises(FolderNotFoundError):
            find(index, "nowhere")
        check_account(index)
