"""A folder in memory: what sessions share, what each sees, and when sequence numbers change."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from fastlisten.mail.store.folder_state import FolderState
from fastlisten.mail.store.interface import Changes, Flag, MessageGoneError, MessageState


def states(uids: Sequence[int], modseq: int, keywords: tuple[str, ...] = ()) -> list[MessageState]:
    return [MessageState(uid, Flag(uid % 32), keywords, modseq) for uid in uids]


def filled(count: int) -> FolderState:
    state = FolderState()
    state.apply(Changes(10, count + 1, states(range(1, count + 1), 10), [], []))
    return state


def uids_of(those: Sequence[MessageState]) -> list[int]:
    return [one.uid for one in those]


def test_state_of_a_message() -> None:
    state = filled(40)
    assert len(state) == 40
    assert state.message(33) == MessageState(33, Flag.SEEN, (), 10)
    state.apply(Changes(11, 41, [], states([33], 11, ("A", "b")), []))
    assert state.message(33) == MessageState(33, Flag.SEEN, ("A", "b"), 11)
    assert state.all_keywords() == ["A", "b"]
    state.apply(Changes(12, 41, [], states([33], 12), []))
    assert state.all_keywords() == []
    for uid in (0, 41, 1 << 40):
        with pytest.raises(MessageGoneError):
            state.message(uid)


def test_older_changes_do_nothing() -> None:
    state = filled(3)
    state.apply(Changes(9, 9, states([8], 9), [], [1]))
    assert list(state.uids) == [1, 2, 3]


def test_view_is_told_everything_once() -> None:
    state = filled(5)
    view = state.view()
    state.apply(Changes(11, 7, states([6], 11), states([2], 11), [3]))
    found = view.advance(expunge=True)
    assert (uids_of(found.arrived), uids_of(found.changed), found.gone) == ([6], [2], [3])
    assert list(view.uids()) == [1, 2, 4, 5, 6]
    assert view.advance(expunge=True) == Changes(11, 7, [], [], [])


def test_view_does_not_change_until_it_is_told() -> None:
    state = filled(5)
    one, two = state.view(), state.view()
    state.apply(Changes(11, 7, states([6], 11), [], [3, 5]))
    assert list(one.uids()) == [1, 2, 3, 4, 5]
    found = one.advance(expunge=False)
    assert (uids_of(found.arrived), found.gone) == ([6], [])
    assert list(one.uids()) == [1, 2, 3, 4, 5, 6]
    state.apply(Changes(12, 7, [], [], [6]))
    assert list(one.uids()) == [1, 2, 3, 4, 5, 6]
    found = one.advance(expunge=True)
    assert found.gone == [3, 5, 6]
    assert list(one.uids()) == list(state.uids) == [1, 2, 4]
    # The other never saw the sixth.
    found = two.advance(expunge=True)
    assert (uids_of(found.arrived), found.gone) == ([], [3, 5])


def test_incomplete_changes_replace_everything() -> None:
    state = filled(4)
    view = state.view()
    state.apply(Changes(20, 1007, states([1006], 20), states([1, 4], 20), [], complete=False))
    assert list(state.uids) == [1, 4, 1006]
    found = view.advance(expunge=True)
    assert (uids_of(found.arrived), uids_of(found.changed)) == ([1006], [1, 4])
    assert found.gone == [2, 3]


def test_views_of_ended_sessions_are_forgotten() -> None:
    state = filled(2)
    views = [state.view() for _ in range(10)]
    for view in views:
        state.leave(view)
    assert state._views == ()


def test_a_message_costs_13_octets() -> None:
    state = filled(1000)
    columns = (state.uids, state._modseqs)
    assert sum(column.itemsize for column in columns) + 1 == 13
    assert len(state._flags) == 1000


@pytest.mark.parametrize("seed", range(5))
def test_views_follow_a_model(seed: int) -> None:
    chance = random.Random(seed)
    state = FolderState()
    there: dict[int, int] = {}
    views = []
    uidnext, modseq = 1, 1
    for _ in range(300):
        modseq += 1
        arrived = list(range(uidnext, uidnext + chance.randrange(3)))
        uidnext += len(arrived)
        old = sorted(there)
        gone = sorted(chance.sample(old, min(len(old), chance.choice((0, 0, 1, 3)))))
        left = sorted(set(old) - set(gone))
        changed = sorted(chance.sample(left, min(len(left), chance.randrange(3))))
        for uid in gone:
            del there[uid]
        there |= dict.fromkeys((*arrived, *changed), modseq)
        state.apply(
            Changes(modseq, uidnext, states(arrived, modseq), states(changed, modseq), gone)
        )
        assert list(state.uids) == sorted(there)
        if chance.random() < 0.1:
            views.append((state.view(), dict(there)))
        for view, seen in views:
            assert list(view.uids()) == sorted(seen)
            if chance.random() < 0.3:
                expunge = chance.random() < 0.5
                found = view.advance(expunge=expunge)
                seen |= {one.uid: one.modseq for one in (*found.arrived, *found.changed)}
                for uid in found.gone:
                    del seen[uid]
                assert not expunge or seen == there
                assert list(view.uids()) == sorted(seen)
