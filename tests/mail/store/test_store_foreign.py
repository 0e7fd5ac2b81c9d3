"""Other programs write to the same Maildir: arrivals, flags, removals, names that occur twice.

Rules of this file: the situations one by one; at random, they are in test_store_crowd.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import (
    check_account,
    compared_look,
    deliver,
    inbox,
    index_of,
    rows_of,
    settled_look,
    uids_of,
)

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import absorb
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.files import Listing
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import status
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode


def filled(index: Index, count: int = 3) -> int:
    """Put messages 1.a, 2.a, ... into INBOX; return its id."""
    for number in range(1, count + 1):
        deliver(index.maildir, b"m%d" % number, f"{number}.a")
    look(index, inbox(index).id)
    compared_look(index, inbox(index).id)
    return inbox(index).id


def test_message_that_arrives_in_cur(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        cur = Path(index.maildir.cur)
        (cur / "5.b:2,RS").write_bytes(b"x")
        (cur / "4.b").write_bytes(b"without flags")
        (cur / "6.b:1,S").write_bytes(b"experimental")
        assert look(index, box).arrived == 3
        assert [row[1:3] for row in rows_of(index, box)[3:]] == [
            ("4.b", 0),
            ("5.b", Flag.SEEN | Flag.ANSWERED),
            ("6.b", 0),
        ]


def test_flags_that_another_program_changes(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        before = status(index, inbox(index)).highestmodseq
        cur = Path(index.maildir.cur)
        (cur / "2.a:2,").rename(cur / "2.a:2,FPSz")
        assert look(index, box).changed == 1
        assert rows_of(index, box)[1][:2] == (2, "2.a")
        assert rows_of(index, box)[1][2] & 31 == Flag.SEEN | Flag.FLAGGED
        found = status(index, inbox(index))
        assert found.unseen == 2
        assert found.highestmodseq > before
        assert settled_look(index, box, thorough=True).changed == 0
        check_account(index)


def test_message_that_another_program_removes(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        os.unlink(f"{index.maildir.cur}/2.a:2,")
        assert settled_look(index, box).gone == 1
        assert uids_of(index, box) == {"1.a": 1, "3.a": 3}
        gone = index.query("SELECT uid FROM gone WHERE type = 1")
        assert gone == [(2,)]
        check_account(index)


def test_name_that_one_listing_misses_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As happens while others rename files in the directory."""
    with index_of(tmp_path) as index:
        box = filled(index)
        real: Callable[..., list[str]] = os.listdir

        def missing(rounds: list[bool]) -> None:
            """Leave out 2.a from the listings of cur/ that come next."""

            def listdir(path: str) -> list[str]:
                names = real(path)
                if path == index.maildir.cur and rounds and rounds.pop(0):
                    names.remove("2.a:2,")
                return names

            monkeypatch.setattr(os, "listdir", listdir)

        missing([True, False])
        assert look(index, box, thorough=True).gone == 0
        assert len(uids_of(index, box)) == 3
        missing([True, True])
        assert look(index, box, thorough=True).gone == 1


def test_directory_that_has_just_changed_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        os.unlink(f"{index.maildir.cur}/2.a:2,")
        # However fast this machine is: the clock stands still at the time of the change.
        now = os.stat(index.maildir.cur).st_mtime_ns
        monkeypatch.setattr("fastlisten.mail.store.files.time.time_ns", lambda: now + 19_000_000)
        assert not Listing(index.maildir).settled
        found = look(index, box)
        assert (found.gone, found.again) == (0, True)
        monkeypatch.setattr("fastlisten.mail.store.files.time.time_ns", lambda: now + 21_000_000)
        assert Listing(index.maildir).settled
        found = look(index, box)
        assert (found.gone, found.again) == (1, False)


def test_second_listing_proves_nothing_either_if_the_directory_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        os.unlink(f"{index.maildir.cur}/2.a:2,")
        made: list[Listing] = []

        class Second(Listing):
            def __init__(self, box: Maildir) -> None:
                super().__init__(box)
                self.settled = not made
                made.append(self)

        with monkeypatch.context() as patch:
            patch.setattr(absorb, "Listing", Second)
            found = look(index, box)
            assert (found.gone, found.again, len(made)) == (0, True, 2)
        assert settled_look(index, box).gone == 1


def test_directory_that_is_missing_for_a_moment_takes_no_message_along(tmp_path: Path) -> None:
    """As while a backup is being restored."""
    with index_of(tmp_path) as index:
        box = filled(index)
        cur = Path(index.maildir.cur)
        cur.rename(tmp_path / "aside")
        found = look(index, box)
        assert (found.gone, found.again) == (0, True)
        (tmp_path / "aside").rename(cur)
        settled_look(index, box, thorough=True)
        assert uids_of(index, box) == {"1.a": 1, "2.a": 2, "3.a": 3}


def test_directory_that_changes_while_it_is_listed_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        filled(index)
        real: Callable[..., list[str]] = os.listdir

        def listdir(path: str) -> list[str]:
            names = real(path)
            Path(index.maildir.new, "now").write_bytes(b"x")
            return names

        monkeypatch.setattr(os, "listdir", listdir)
        assert not Listing(index.maildir).settled


def test_two_links_of_one_file_become_one(tmp_path: Path) -> None:
    """What link(2) and unlink(2), in the place of a rename, leave if they are interrupted."""
    with index_of(tmp_path) as index:
        box = filled(index)
        cur = Path(index.maildir.cur)
        os.link(cur / "1.a:2,", cur / "1.a:2,S")
        os.link(cur / "2.a:2,", Path(index.maildir.new) / "2.a")
        settled_look(index, box)
        assert uids_of(index, box) == {"1.a": 1, "2.a": 2, "3.a": 3}
        assert sorted(name.partition(":")[0] for name in os.listdir(cur)) == ["1.a", "2.a", "3.a"]
        assert os.listdir(index.maildir.new) == []
        check_account(index)


def test_two_files_of_one_name_become_two_messages(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        (Path(index.maildir.cur) / "1.a:2,S").write_bytes(b"other 1")
        deliver(index.maildir, b"other 2", "2.a")
        settled_look(index, box)
        found = uids_of(index, box)
        assert len(found) == 5
        assert {found["1.a"], found["2.a"], found["3.a"]} == {1, 2, 3}
        contents = {path.read_bytes() for path in Path(index.maildir.cur).iterdir()}
        assert contents == {b"m1", b"m2", b"m3", b"other 1", b"other 2"}
        check_account(index)


def test_name_of_a_message_in_new_again(tmp_path: Path) -> None:
    """Only new/ is looked at, and what it has is no known message."""
    with index_of(tmp_path) as index:
        box = filled(index)
        deliver(index.maildir, b"other", "3.a")
        assert look(index, box).arrived == 0
        assert Path(index.maildir.cur, "3.a:2,").read_bytes() == b"m3"
        settled_look(index, box, thorough=True)
        assert len(uids_of(index, box)) == 4
        check_account(index)


def test_removals_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absorb, "LARGEST_SLICE", 2)
    with index_of(tmp_path) as index:
        for number in range(7):
            deliver(index.maildir, name=f"{number}.a")
        settled_look(index, inbox(index).id)
        for number in range(5):
            os.unlink(f"{index.maildir.cur}/{number}.a:2,")
        assert settled_look(index, inbox(index).id).gone == 5
        check_account(index)


def test_unreadable_message_is_left_out_until_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        name = deliver(index.maildir)

        def failing(path: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        with monkeypatch.context() as patch:
            patch.setattr(absorb, "inspect", failing)
            assert look(index, inbox(index).id).arrived == 0
        assert look(index, inbox(index).id).arrived == 1
        assert uids_of(index, inbox(index).id) == {name: 1}


def test_first_look_compares_unless_the_time_is_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have changed cur/ within the tick of a change of our own."""
    with index_of(tmp_path) as index:
        box = filled(index)
        listed: list[str] = []
        real: Callable[..., list[str]] = os.listdir

        def listdir(path: str) -> list[str]:
            listed.append(path)
            return real(path)

        monkeypatch.setattr(os, "listdir", listdir)
        cur = Path(index.maildir.cur)
        look(index, box, first=True)
        assert index.maildir.cur not in listed
        store(index, box, [1], StoreMode.ADD, Flag.SEEN)
        times = os.stat(cur)
        (cur / "2.a:2,").rename(cur / "2.a:2,F")
        os.utime(cur, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if it was the same tick
        assert look(index, box).changed == 0
        assert look(index, box, first=True).changed == 1
        compared_look(index, box)
        (cur / "3.a:2,").rename(cur / "3.a:2,F")
        assert look(index, box, first=True).changed == 1
