"""Flags of many messages at once: the columns of a folder, and the responses made of them.

Rules of this file: what is made for many is compared with what is made for one after the other.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten._mail_syntax import fetch_flags
from fastlisten.handlers.imap.engine import message_responses as responses
from fastlisten.handlers.imap.message_flags import written_flags, written_forms
from fastlisten.handlers.imap.message_sets import numbers_of
from fastlisten.mail.store.folder_state import FolderState, Loaded, columns_of
from fastlisten.mail.store.interface import (
    GONE,
    HAS_KEYWORDS,
    Changes,
    Flag,
    MessageState,
)

ROWS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 1 << 62), st.integers(0, 31), st.booleans()),
    max_size=40,
)


def loaded(rows: Sequence[tuple[int, int, int, bool]]) -> FolderState:
    uids = list(itertools.accumulate(step for step, *_ in rows))
    words = [(uid, "$Forwarded $MDNSent") for uid, row in zip(uids, rows, strict=True) if row[3]]
    state = FolderState()
    whole = Loaded(1 << 62, max(uids, default=0) + 1)
    if uids:
        whole.add(uids, [row[1] for row in rows], [row[2] for row in rows], words)
    state.load(whole)
    return state


def _written(state: MessageState) -> bytes:
    return written_flags(state, recent=False)


@given(rows=ROWS, first=st.integers(0, 1 << 32), data=st.data())
def test_responses_are_those_of_one_message_after_the_other(
    rows: list[tuple[int, int, int, bool]], first: int, data: st.DataObject
) -> None:
    view = loaded(rows).view()
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    columns = view.columns(range(start, stop))
    states = [view.state.message(uid) for uid in view.uids()[start:stop]]
    others = {
        place: _written(one)
        for place, one in enumerate(states)
        if columns.flags[place] & HAS_KEYWORDS
    }
    assert len(others) == sum(bool(one.keywords) for one in states)
    triples = [
        (first + place, one.uid, _written(one), one.modseq) for place, one in enumerate(states)
    ]
    written = written_forms(recent=False)
    uids, modseqs = columns.uids, columns.modseqs
    for with_uids, with_modseqs, expected in (
        (None, None, responses.fetch_flags_responses([(n, f) for n, _, f, _ in triples])),
        (uids, None, responses.fetch_uid_flags_responses([(n, u, f) for n, u, f, _ in triples])),
        (
            None,
            modseqs,
            responses.fetch_flags_modseq_responses([(n, f, m) for n, _, f, m in triples]),
        ),
        (uids, modseqs, responses.fetch_uid_flags_modseq_responses(triples)),
    ):
        found = fetch_flags(first, columns.flags, written, others, with_uids, with_modseqs)
        assert found == expected


def test_messages_without_a_written_form_are_left_out() -> None:
    flags = bytes([0, GONE, HAS_KEYWORDS, HAS_KEYWORDS, 255])
    found = fetch_flags(7, flags, written_forms(recent=True), {3: b"x"}, None, None)
    assert found == b"* 7 FETCH (FLAGS (\\Recent))\r\n* 10 FETCH (FLAGS (x))\r\n"


def test_columns_have_to_be_as_long_as_the_flags() -> None:
    with pytest.raises(ValueError, match="fewer values"):
        fetch_flags(1, bytes(2), [b""], {}, array("I", [1]), None)
    with pytest.raises(ValueError, match="fewer values"):
        fetch_flags(1, bytes(2), [b""], {}, None, array("Q", [1]))


def test_largest_numbers_fit() -> None:
    number, uid, modseq = (1 << 63) - 2, (1 << 32) - 1, (1 << 64) - 1
    found = fetch_flags(number, b"\0", [b"f" * 500], {}, array("I", [uid]), array("Q", [modseq]))
    assert found == responses.fetch_uid_flags_modseq_responses([(number, uid, b"f" * 500, modseq)])


@given(rows=ROWS, gone=st.sets(st.integers(0, 39)), data=st.data())
def test_session_sees_what_is_gone_until_it_is_told(
    rows: list[tuple[int, int, int, bool]], gone: set[int], data: st.DataObject
) -> None:
    state = loaded(rows)
    view = state.view()
    before = list(view.uids())
    removed = [before[place] for place in sorted(gone) if place < len(before)]
    new = MessageState(state.uidnext, Flag.SEEN, (), (1 << 62) + 1)
    state.apply(Changes((1 << 62) + 1, state.uidnext + 1, [new], [], removed))
    assert list(view.uids()) == before
    columns = view.columns(range(len(before)))
    assert columns == columns_of(before, state.message)
    assert [uid for uid, bits in zip(before, columns.flags, strict=True) if bits == GONE] == removed
    view.advance(expunge=True)
    told = view.columns(range(len(view.uids())))
    assert list(told.uids) == [uid for uid in before if uid not in removed] + [new.uid]
    assert GONE not in told.flags


@given(uids=st.sets(st.integers(1, 999), max_size=80), data=st.data())
def test_numbers_are_those_of_the_uids(uids: set[int], data: st.DataObject) -> None:
    mine = sorted(uids)
    those = sorted(data.draw(st.sets(st.sampled_from(mine)))) if mine else []
    assert numbers_of(those, mine) == [mine.index(uid) + 1 for uid in those]
