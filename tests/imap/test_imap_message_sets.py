"""From sets of numbers and UIDs to places in a mailbox; ranges of what has vanished.

Rules of this file: functions alone, against sets written out.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastlisten.handlers.imap.engine.sequence_sets import SAVED, STAR, SequenceSet
from fastlisten.handlers.imap.message_sets import place_of, places_of, slices_of, uids_of
from fastlisten.handlers.imap.vanished import vanished_earlier
from fastlisten.mail.store.interface import Changes

SMALL = st.integers(1, 30)
UIDS = st.sets(SMALL).map(sorted)
RANGES = st.lists(st.tuples(SMALL | st.just(STAR), SMALL | st.just(STAR)), min_size=1, max_size=4)


def named(ranges: list[tuple[int, int]], largest: int) -> set[int]:
    found: set[int] = set()
    for first, last in ranges:
        low, high = sorted(largest if one == STAR else one for one in (first, last))
        found |= set(range(low, high + 1))
    return found


@given(UIDS, RANGES)
def test_places(uids: list[int], ranges: list[tuple[int, int]]) -> None:
    messages = SequenceSet(tuple(ranges))
    if not uids:
        assert places_of(messages, uids, (), uid=True) == []
        assert places_of(messages, uids, (), uid=False) == []
        return
    found = uids_of(places_of(messages, uids, (), uid=True), uids)
    assert found == [uid for uid in uids if uid in named(ranges, uids[-1])]
    found = uids_of(places_of(messages, uids, (), uid=False), uids)
    numbers = named(ranges, len(uids))
    assert found == [uid for number, uid in enumerate(uids, 1) if number in numbers]


@given(UIDS, UIDS)
def test_saved_places(uids: list[int], saved: list[int]) -> None:
    found = uids_of(places_of(SAVED, uids, saved, uid=False), uids)
    assert found == sorted(set(uids) & set(saved))
    for uid in range(1, 31):
        assert place_of(uid, uids) == (uids.index(uid) if uid in uids else -1)


def test_slices() -> None:
    places = [range(2, 5), range(7, 8), range(10, 20)]
    assert [list(piece) for piece in slices_of(places, 4)] == [
        [2, 3, 4], [7], [10, 11, 12, 13], [14, 15, 16, 17], [18, 19]
    ]  # fmt: skip


def uids_in(response: bytes) -> set[int]:
    if not response:
        return set()
    assert response.startswith(b"* VANISHED (EARLIER) ")
    assert response.endswith(b"\r\n")
    found: set[int] = set()
    for item in response[len(b"* VANISHED (EARLIER) ") : -2].split(b","):
        first, _, last = item.partition(b":")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@given(UIDS, UIDS, RANGES)
def test_vanished(uids: list[int], gone: list[int], ranges: list[tuple[int, int]]) -> None:
    ranges = [(low, high) for low, high in ranges if STAR not in (low, high)] or [(3, 9)]
    wanted = named(ranges, 0)
    messages = SequenceSet(tuple(ranges))
    known = Changes(9, 31, (), (), gone)
    assert uids_in(vanished_earlier(known, uids, messages)) == wanted & set(gone) - set(uids)
    assert uids_in(vanished_earlier(known, uids, None)) == set(gone) - set(uids)
    unknown = Changes(9, 31, (), (), (), complete=False)
    assert uids_in(vanished_earlier(unknown, uids, messages)) == wanted - set(uids)
    assert uids_in(vanished_earlier(unknown, uids, None)) == set(range(1, 31)) - set(uids)
    saved = [uid for uid in gone if uid % 2]
    assert uids_in(vanished_earlier(unknown, uids, SAVED, saved)) == set(saved) - set(uids)
