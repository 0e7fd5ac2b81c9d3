"""The two phases of a reload: all workers prepare, then all commit; one that does not is lost.

Rules of this file: workers are lists of messages, and time passes when the test says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fastlisten.runtime.supervisor.channel import (
    BadMessageError,
    ChannelClosedError,
    ChannelFullError,
    NoRoomError,
)
from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.reload_messages import (
    ABANDON,
    COMMIT,
    COMMITTED,
    PREPARE,
    PREPARED,
    SOCKETS,
    TAKEN,
    Answer,
)
from fastlisten.runtime.supervisor.reload_phases import (
    COMMIT_SECONDS,
    PREPARE_SECONDS,
    ReloadPhases,
)

MESSAGES = [(SOCKETS, {"id": 7}, (3, 4)), (PREPARE, {"id": 7}, ())]


def ended(outcome: Pending[Any]) -> bool:
    return outcome.done


class World:
    """Workers 1 and 2, and their reload."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: dict[int, list[str]] = {1: [], 2: []}
        self.errors: dict[int, Exception] = {}
        self.phases = ReloadPhases(7, self.send, lambda: self.now)

    def send(self, key: int, kind: str, body: Mapping[str, Any], fds: Sequence[int]) -> None:
        assert body["id"] == 7
        assert tuple(fds) == ((3, 4) if kind == SOCKETS else ())
        if key in self.errors:
            raise self.errors[key]
        self.sent[key].append(kind)

    def answer(self, key: int, *steps: str, problem: str = "", id: int = 7) -> None:
        for step in steps:
            problems = (problem,) if problem else ()
            body = json.loads(json.dumps(Answer(id, step, problems).encode()))
            self.phases.receive(key, body)

    def prepared(self) -> None:
        """Let both prepare."""
        outcome = self.phases.prepare({1: MESSAGES, 2: MESSAGES})
        for key in (1, 2):
            self.answer(key, TAKEN, PREPARED)
        assert outcome.result() == ()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.phases.expire()


def test_all_prepare_before_one_commits() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    assert world.sent == {1: [SOCKETS], 2: [SOCKETS]}  # the rest when that has been read
    world.answer(1, TAKEN, PREPARED)
    assert world.sent == {1: [SOCKETS, PREPARE], 2: [SOCKETS]}
    assert not ended(outcome)
    world.answer(2, TAKEN)
    assert not ended(outcome)
    world.answer(2, PREPARED)
    assert outcome.result() == ()
    done = world.phases.commit()
    assert world.sent == {1: [SOCKETS, PREPARE, COMMIT], 2: [SOCKETS, PREPARE, COMMIT]}
    world.answer(1, COMMITTED)
    assert not ended(done)
    world.answer(2, COMMITTED)
    assert ended(done)
    assert (set(world.phases.answers), world.phases.lost) == ({1, 2}, set())
    assert world.phases.deadline is None


def test_one_that_cannot_prepare_ends_it_for_all() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.answer(1, TAKEN)
    world.answer(1, PREPARED, problem="the store is broken")
    assert outcome.result() == ("the store is broken",)
    assert world.phases.abandon() == []
    assert world.sent == {1: [SOCKETS, PREPARE, ABANDON], 2: [SOCKETS, ABANDON]}
    world.answer(2, TAKEN)  # was on its way
    assert world.sent[2] == [SOCKETS, ABANDON]


def test_one_that_ends_or_hangs_is_not_waited_for() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.answer(1, TAKEN, PREPARED)
    world.phases.give_up([1, 2])  # 1 has prepared, so it does not hang
    assert outcome.result() == ()
    assert world.phases.lost == {2}
    done = world.phases.commit()
    world.phases.remove(1)
    assert ended(done)
    assert (world.phases.answers, world.phases.lost) == ({}, {1, 2})


def test_nobody_left_is_a_failure() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.phases.remove(1)
    assert not ended(outcome)
    world.phases.remove(2)
    assert outcome.result() == ("no worker has taken the new configuration",)
    # They may wake up, and must forget it then.
    world.phases.abandon()
    assert world.sent == {1: [SOCKETS, ABANDON], 2: [SOCKETS, ABANDON]}


def test_time_is_limited_in_both_phases() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.answer(1, TAKEN, PREPARED)
    assert world.phases.deadline == world.now + PREPARE_SECONDS
    world.pass_time(PREPARE_SECONDS)
    assert outcome.result() == ()
    assert world.phases.lost == {2}
    done = world.phases.commit()
    world.pass_time(COMMIT_SECONDS / 2)
    assert not ended(done)
    world.pass_time(COMMIT_SECONDS / 2)
    assert ended(done)
    assert world.phases.lost == {1, 2}


def test_full_channel_is_tried_again() -> None:
    world = World()
    world.errors[2] = ChannelFullError("full")
    world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    assert world.sent == {1: [SOCKETS], 2: []}
    del world.errors[2]
    deadline = world.phases.deadline
    assert deadline is not None
    world.pass_time(deadline - world.now)
    assert world.sent == {1: [SOCKETS], 2: [SOCKETS]}


def test_one_that_cannot_be_told_to_abandon_is_named() -> None:
    world = World()
    world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.errors = {1: ChannelFullError("full"), 2: ChannelClosedError("it has ended")}
    assert world.phases.abandon() == [1]


@pytest.mark.parametrize("error", [ValueError("it is too long"), NoRoomError("it is too long")])
def test_message_that_cannot_be_sent_is_a_failure(error: Exception) -> None:
    world = World()
    world.errors[2] = error
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    text = "the workers cannot be given the new configuration: it is too long"
    assert outcome.result() == (text,)
    assert world.phases.lost == set()  # nobody is at fault


def test_one_that_has_not_committed_is_lost() -> None:
    world = World()
    world.prepared()
    done = world.phases.commit()
    world.answer(1, COMMITTED, problem="it drains")
    world.answer(2, COMMITTED)
    assert ended(done)
    assert (set(world.phases.answers), world.phases.lost) == ({2}, {1})


def test_server_that_stops() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.phases.cancel(RuntimeError("stopped"))
    with pytest.raises(RuntimeError, match="stopped"):
        outcome.result()
    world = World()
    world.prepared()
    done = world.phases.commit()
    world.answer(1, COMMITTED)
    world.phases.cancel(RuntimeError("stopped"))
    assert ended(done)
    assert (set(world.phases.answers), world.phases.lost) == ({1}, {2})


def test_answers_that_nobody_waits_for_change_nothing() -> None:
    world = World()
    outcome = world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    world.answer(1, PREPARED)  # not yet
    world.answer(1, TAKEN, PREPARED, id=6)  # to another reload
    world.answer(3, TAKEN)  # nobody
    assert world.sent == {1: [SOCKETS], 2: [SOCKETS]}
    assert not ended(outcome)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": True},
        {"step": "abandoned"},
        {"problems": "none"},
        {"problems": [1]},
        {"code": None},
        {"lines": [["text", "event"]]},
    ],
)
def test_answer_that_no_worker_sends(wrong: dict[str, object]) -> None:
    world = World()
    world.phases.prepare({1: MESSAGES, 2: MESSAGES})
    body = json.loads(json.dumps(Answer(7, TAKEN).encode()))
    with pytest.raises(BadMessageError):
        world.phases.receive(1, body | wrong)
    world.phases.receive(1, body)
    assert world.sent[1] == [SOCKETS, PREPARE]
