"""STORE: deltas apply to what the files say, keywords, UNCHANGEDSINCE, failures."""

from __future__ import annotations

import os
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
)

from fastlisten.mail.store import selection
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import status
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import NO_FLAGS, Flag, StoreMode
from fastlisten.mail.store.letters import bits_of, letters_of

ADD, REMOVE, SET = StoreMode.ADD, StoreMode.REMOVE, StoreMode.SET
S, F, T = Flag.SEEN, Flag.FLAGGED, Flag.DELETED


def filled(index: Index, count: int = 3) -> int:
    """Put messages 1.a, 2.a, ... into INBOX; return its id."""
    for number in range(1, count + 1):
        deliver(index.maildir, name=f"{number}.a")
    look(index, inbox(index).id)
    return inbox(index).id


def in_cur(index: Index) -> list[str]:
    return sorted(os.listdir(index.maildir.cur))


def test_letters() -> None:
    assert letters_of(bits_of("TSRDF")) == "DFRST"
    assert letters_of(bits_of("")) == ""
    assert letters_of(bits_of("zPaS1,S")) == "PSaz"
    assert len({bits_of(letter) for letter in "DFRSTPabz"}) == 9
    assert bits_of("S") == S
    assert bits_of("T") == T


def test_flags_are_added_removed_and_set(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        found = store(index, box, [1, 2], ADD, S | F)
        assert [(one.uid, one.flags) for one in found.changed] == [(1, S | F), (2, S | F)]
        store(index, box, [2], REMOVE, S)
        store(index, box, [1], SET, T)
        assert in_cur(index) == ["1.a:2,T", "2.a:2,F", "3.a:2,"]
        assert [flags for _, _, flags, _ in rows_of(index, box)] == [T, F, 0]
        found_status = status(index, inbox(index))
        assert (found_status.unseen, found_status.deleted) == (3, 1)
        check_account(index)


def test_modseq_grows_only_with_changes(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        before = status(index, inbox(index)).highestmodseq
        (one,) = store(index, box, [1], ADD, S).changed
        assert one.modseq > before
        assert status(index, inbox(index)).highestmodseq == one.modseq
        assert store(index, box, [1], ADD, S).changed == []
        assert store(index, box, [1], REMOVE, F).changed == []
        assert store(index, box, [1], SET, S).changed == []
        assert store(index, box, [77], ADD, S).changed == []
        assert status(index, inbox(index)).highestmodseq == one.modseq


def test_delta_applies_to_the_flags_that_another_program_set(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        cur = Path(index.maildir.cur)
        (cur / "1.a:2,").rename(cur / "1.a:2,FPz")
        (cur / "2.a:2,").rename(cur / "2.a:2,S")
        found = store(index, box, [1, 2], ADD, S)
        assert [(one.uid, one.flags) for one in found.changed] == [(1, S | F), (2, S)]
        assert in_cur(index) == ["1.a:2,FPSz", "2.a:2,S", "3.a:2,"]
        store(index, box, [1], SET, T)  # letters that are no system flags stay
        assert in_cur(index)[0] == "1.a:2,PTz"
        check_account(index)


def test_message_that_another_program_removed_is_left_to_the_look(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        os.unlink(f"{index.maildir.cur}/2.a:2,")
        store(index, box, [1, 2, 3], ADD, S)
        assert settled_look(index, box).gone == 1
        assert [(uid, flags) for uid, _, flags, _ in rows_of(index, box)] == [(1, S), (3, S)]
        check_account(index)


def test_keywords(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        (one,) = store(index, box, [1], ADD, NO_FLAGS, ["$Junk", "Later"]).changed
        assert one.keywords == ("$Junk", "Later")
        # As they were first spelt, in other messages too.
        (two,) = store(index, box, [2], ADD, NO_FLAGS, ["LATER", "later"]).changed
        assert two.keywords == ("Later",)
        assert store(index, box, [1], ADD, NO_FLAGS, ["later"]).changed == []
        (one,) = store(index, box, [1], REMOVE, S, ["$JUNK"]).changed
        assert (one.flags, one.keywords) == (0, ("Later",))
        (one,) = store(index, box, [1], SET, S, ["b", "A"]).changed
        assert (one.flags, one.keywords) == (S, ("A", "b"))
        (one,) = store(index, box, [1], SET, S).changed
        assert one.keywords == ()


@pytest.mark.parametrize("keyword", ["", "a b", "a\\b", "a(", 'a"', "a%", "a*", "a]", "ä", "a\n"])
def test_what_is_no_keyword(tmp_path: Path, keyword: str) -> None:
    with index_of(tmp_path) as index, pytest.raises(ValueError, match="not a keyword"):
        store(index, inbox(index).id, [1], ADD, NO_FLAGS, [keyword])


def test_unchanged_since(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        since = status(index, inbox(index)).highestmodseq
        store(index, box, [2], ADD, F)
        found = store(index, box, [1, 2, 3], ADD, S, unchanged_since=since)
        assert [one.uid for one in found.changed] == [1, 3]
        assert found.modified == [2]
        assert in_cur(index) == ["1.a:2,S", "2.a:2,F", "3.a:2,S"]


def test_many_messages_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LARGEST_SLICE", 2)
    with index_of(tmp_path) as index:
        box = filled(index, 7)
        found = store(index, box, range(1, 8), ADD, S)
        assert [one.uid for one in found.changed] == list(range(1, 8))
        assert len({one.modseq for one in found.changed}) == 4
        check_account(index)


def test_file_that_cannot_be_renamed_keeps_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)

        def failing(box: object, source: str, target: str) -> None:
            raise OSError(28, "No space left on device", source)

        with monkeypatch.context() as patch:
            patch.setattr("fastlisten.mail.store.pending.rename_into", failing)
            with pytest.raises(OSError, match="No space left"):
                store(index, box, [1], ADD, S)
        assert index.query("SELECT * FROM pending") == []
        assert rows_of(index, box)[0] == (1, "1.a", 0, "")
        (one,) = store(index, box, [1], ADD, S).changed
        assert one.flags == S
        check_account(index)


def test_own_changes_are_no_reason_to_list_the_directory(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = filled(index)
        compared_look(index, box)
        store(index, box, [1, 2], ADD, S)
        ((seen,),) = index.query("SELECT seen_mtime FROM folder")
        assert seen == os.stat(index.maildir.cur).st_mtime_ns
        (Path(index.maildir.cur) / "9.z:2,").write_bytes(b"x")
        store(index, box, [1, 2], REMOVE, S)
        assert settled_look(index, box).arrived == 1
