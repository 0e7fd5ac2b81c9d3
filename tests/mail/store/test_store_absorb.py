"""Absorbing new/: UIDs in the order of arrival, slices, names that cannot be kept, sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mail_store import (
    check_account,
    deliver,
    facts,
    inbox,
    index_of,
    rows_of,
    settled_look,
    uids_of,
)

from fastlisten.mail.store import absorb
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.arrivals import arrival_order
from fastlisten.mail.store.files import inspect
from fastlisten.mail.store.folders import status


def test_uids_follow_the_numbers_in_names(tmp_path: Path) -> None:
    names = [
        "999999999.M9P1Q1Rff.host",
        "1000000000.M5P10Q2Rff.host",
        "1000000000.M40P1Q3Rff.host",
        "1000000000.M40P1Q20Rff.host",
        "1000000000.M300000P1Q1Rff.host",
    ]
    with index_of(tmp_path) as index:
        for name in sorted(names):  # by octets, that is in another order
            deliver(index.maildir, name=name)
        assert look(index, inbox(index).id).arrived == 5
        assert uids_of(index, inbox(index).id) == {name: 1 + n for n, name in enumerate(names)}
        assert sorted(os.listdir(index.maildir.cur)) == sorted(f"{name}:2," for name in names)
        assert os.listdir(index.maildir.new) == []
        check_account(index)


def test_arrival_order_of_any_names() -> None:
    names = ["", "a", "1", "10.a", "9.a", "9.b1", "9", "x" * 255, "1" * 255, "\u0663", "1.\u0661"]
    assert len(sorted(names, key=arrival_order)) == len(names)


def test_time_that_the_index_cannot_hold(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        for when in (1 << 34, -(1 << 31)):
            name = deliver(index.maildir)
            os.utime(f"{index.maildir.new}/{name}", (when, when))
        assert look(index, inbox(index).id).arrived == 2
        first, second = facts(index, inbox(index).id, [1, 2])
        assert first.date == (1 << 63) // 10**9
        assert second.date < 0


def test_second_look_finds_nothing(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        deliver(index.maildir)
        assert look(index, inbox(index).id).arrived == 1
        before = rows_of(index, inbox(index).id)
        found = look(index, inbox(index).id, thorough=True)
        assert (found.arrived, found.changed, found.gone) == (0, 0, 0)
        assert rows_of(index, inbox(index).id) == before


def test_many_are_absorbed_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absorb, "LARGEST_SLICE", 3)
    with index_of(tmp_path) as index:
        names = [deliver(index.maildir) for _ in range(10)]
        locks = 0
        real = index.locked

        def counted() -> object:
            nonlocal locks
            locks += 1
            return real()

        monkeypatch.setattr(index, "locked", counted)
        assert look(index, inbox(index).id).arrived == 10
        assert locks == 4
        assert uids_of(index, inbox(index).id) == {name: 1 + n for n, name in enumerate(names)}


def test_between_slices_others_may_absorb_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of a look is old when its second slice begins."""
    monkeypatch.setattr(absorb, "LARGEST_SLICE", 3)
    with index_of(tmp_path) as index, index_of(tmp_path) as other:
        names = [deliver(index.maildir) for _ in range(9)]
        real = index.locked
        found: list[int] = []

        def meanwhile() -> object:
            if len(found) == 1:
                os.unlink(f"{index.maildir.new}/{names[8]}")
                found.append(look(other, inbox(other).id).arrived)
            found.append(0)
            return real()

        monkeypatch.setattr(index, "locked", meanwhile)
        assert look(index, inbox(index).id).arrived == 3
        assert found[1] == 5
        assert uids_of(index, inbox(index).id) == {name: 1 + n for n, name in enumerate(names[:8])}
        check_account(index)


def test_known_message_in_new_is_only_moved(tmp_path: Path) -> None:
    """A crash between the commit and the rename leaves it there."""
    with index_of(tmp_path) as index:
        name = deliver(index.maildir)
        look(index, inbox(index).id)
        os.rename(f"{index.maildir.cur}/{name}:2,", f"{index.maildir.new}/{name}")
        assert look(index, inbox(index).id).arrived == 0
        assert rows_of(index, inbox(index).id) == [(1, name, 0, "")]
        check_account(index)


@pytest.mark.parametrize("name", [b"x" * 250, b"caf\xe9.1"])
def test_name_that_cannot_be_kept(tmp_path: Path, name: bytes) -> None:
    with index_of(tmp_path) as index:
        for directory, info in (("new", b""), ("cur", b":2,S" if len(name) < 250 else b":2,")):
            path = os.fsencode(f"{tmp_path}/{directory}/") + name + info
            Path(os.fsdecode(path)).write_bytes(directory.encode())
        assert settled_look(index, inbox(index).id).arrived == 2
        check_account(index)
        contents = {path.read_bytes() for path in Path(index.maildir.cur).iterdir()}
        assert contents == {b"new", b"cur"}


def test_what_is_no_message_stays(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        os.mkdir(f"{index.maildir.new}/directory")
        os.mkfifo(f"{index.maildir.new}/pipe")
        os.symlink("/etc/passwd", f"{index.maildir.new}/link")
        Path(index.maildir.new, ".hidden").write_bytes(b"x")
        Path(index.maildir.new, ":2,S").write_bytes(b"x")
        assert look(index, inbox(index).id).arrived == 0
        assert len(os.listdir(index.maildir.new)) == 5


@pytest.mark.parametrize(
    ("content", "size", "eol"),
    [
        (b"", 0, 0),
        (b"no line", 7, 0),
        (b"a\r\nb\r\n", 6, 0),
        (b"a\nb\n", 6, 1),
        (b"\nb\n", 5, 1),
        (b"a\nb\r\nc\n", 9, 1),
        (b"a\r\nb\nc\n", 7, 0),  # made of CRLFs: served octet by octet
        (b"a" * 8191 + b"\r\nb\n", 8195, 0),
        (b"a" * 8192 + b"\nb\n", 8197, 1),
        (b"\n" + b"x" * 8190 + b"\r" + b"\n" + b"\n", 8196, 1),
    ],
)
def test_size_is_that_of_the_served_form(
    tmp_path: Path, content: bytes, size: int, eol: int
) -> None:
    path = tmp_path / "message"
    path.write_bytes(content)
    found = inspect(str(path))
    assert found is not None
    assert (found.size, found.eol, found.octets) == (size, eol, len(content))


def test_status(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        deliver(index.maildir, b"a\nb\n")
        deliver(index.maildir, b"abc\r\n")
        look(index, inbox(index).id)
        found = status(index, inbox(index))
        assert (found.messages, found.unseen, found.recent, found.deleted) == (2, 2, 2, 0)
        assert (found.size, found.uidnext) == (6 + 5, 3)
