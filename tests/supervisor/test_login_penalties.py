"""The table of penalties in the supervisor: attempts of several workers, ends of workers, mischief.

Rules of this file: no processes and no time; messages go through JSON, as in a channel, and
`pass_time` calls `expire` when it is due, as a poll loop does.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastlisten.mail.logins import penalties
from fastlisten.mail.logins.failed_names import FORGOTTEN
from fastlisten.mail.logins.penalties import FREE
from fastlisten.runtime.supervisor import login_penalties
from fastlisten.runtime.supervisor.channel import BadMessageError, ChannelFullError
from fastlisten.runtime.supervisor.login_penalties import (
    ASK_AGAIN,
    BUSY,
    LOGIN_ANSWER,
    LOGIN_ENTER,
    LOGIN_LEAVE,
    LONGEST_ATTEMPT,
    NOW,
    WAIT,
    SharedPenalties,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


class World:
    """The table and its workers.

    Attributes:
        now: the clock.
        shared: under test.
        states: what each attempt was answered last, by worker and id.
        full: workers whose channel takes no messages.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.shared = SharedPenalties(self._send, lambda: self.now)
        self.states: dict[tuple[int, int], str] = {}
        self.failures: dict[tuple[int, int], int] = {}
        self.full: set[int] = set()
        self._ids = 0

    def _send(self, key: int, kind: str, body: Any) -> None:
        if key in self.full:
            raise ChannelFullError("full")
        assert kind == LOGIN_ANSWER
        assert json.loads(json.dumps(body)) == body
        self.states[key, body["id"]] = body["state"]
        self.failures[key, body["id"]] = body["failures"]

    def hear(self, key: int, kind: str, body: Any) -> bool:
        return self.shared.receive(key, kind, json.loads(json.dumps(body)))

    def enter(
        self, key: int, source: str = HERE, id: int | None = None, name: str = "0a"
    ) -> tuple[int, int]:
        """Let a worker ask; return its attempt."""
        if id is None:
            self._ids += 1
            id = self._ids
        assert self.hear(key, LOGIN_ENTER, {"id": id, "source": source, "name": name})
        return key, id

    def leave(self, attempt: tuple[int, int], mistake: str | None = None) -> None:
        assert self.hear(attempt[0], LOGIN_LEAVE, {"id": attempt[1], "mistake": mistake})

    def fail(self, key: int, mistake: str, source: str = HERE, name: str = "ff") -> None:
        """Fail at once, with another name than the attempts that are looked at."""
        attempt = self.enter(key, source, name=name)
        assert self.states[attempt] == NOW
        self.leave(attempt, mistake)

    def lock_out(self) -> None:
        """Fail until the next attempt has to wait for a second."""
        for number in range(FREE):
            self.fail(number % 2, f"{number:02x}")

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.shared.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            self.shared.expire()
        self.now = end

    def has(self, attempt: tuple[int, int], state: str, after: float) -> bool:
        """Whether an attempt gets into a state after some seconds, and not before."""
        self.pass_time(after - 0.01)
        before = self.states[attempt]
        self.pass_time(0.02)
        return before != state and self.states[attempt] == state


def test_failures_in_all_workers_count() -> None:
    world = World()
    world.lock_out()
    first, second = world.enter(1), world.enter(0)
    assert world.states[first] == world.states[second] == WAIT
    assert world.has(first, NOW, after=1)
    assert world.failures[first] == FREE
    world.leave(first, "aa")
    assert world.has(second, NOW, after=2)
    world.leave(second)
    world.fail(0, "00", THERE)
    assert len(world.shared) == 0


def test_attempts_in_all_workers_count_as_failures() -> None:
    world = World()
    inside = [world.enter(key) for key in range(FREE)]
    assert [world.states[one] for one in inside] == [NOW] * FREE
    assert [world.failures[one] for one in inside] == list(range(FREE))
    waits = world.enter(9)
    assert world.states[waits] == WAIT
    world.leave(inside[1])
    assert world.states[waits] == NOW


def test_same_mistake_in_another_worker_counts_less() -> None:
    world = World()
    for number in range(9):
        attempt = world.enter(number % 2)
        world.pass_time(4.01)
        assert world.states[attempt] == NOW
        world.leave(attempt, "0123456789abcdef")
    attempt = world.enter(0)
    assert world.has(attempt, NOW, after=4)


def test_failures_of_a_name_count_in_all_workers() -> None:
    world = World()
    for number in range(5):
        world.fail(number % 2, "00", f"10.0.0.{number}", name="aa")
    attempt, other = world.enter(0, THERE, name="aa"), world.enter(1, THERE, name="bb")
    assert (world.failures[attempt], world.failures[other]) == (5, 1)  # and one from this address
    world.leave(attempt)
    world.leave(other)
    world.pass_time(FORGOTTEN)
    assert world.failures[world.enter(1, THERE, name="aa")] == 0


def test_worker_that_ends_inside_has_failed() -> None:
    world = World()
    world.lock_out()
    inside, waits, other = world.enter(0), world.enter(0), world.enter(1)
    world.pass_time(1)
    assert world.states[inside] == NOW
    world.shared.remove(0)
    # It counts as one failure, those that waited as none.
    assert world.has(other, NOW, after=2)
    assert world.states[waits] == WAIT
    assert len(world.shared) == 1
    world.shared.remove(0)
    world.leave(waits, "aa")  # of a message that was still on its way
    world.leave(other)
    assert len(world.shared) == 0
    assert not world.shared._of_worker[0]


def test_attempt_that_takes_too_long_has_failed() -> None:
    world = World()
    world.lock_out()
    slow, waits = world.enter(0), world.enter(1)
    assert world.has(slow, NOW, after=1)
    for _ in range(6):
        world.pass_time(LONGEST_ATTEMPT / 6)
        world.enter(1, id=waits[1])
    assert world.has(waits, NOW, after=2 - 0.01)
    world.leave(slow, "aa")  # too late
    world.leave(waits)
    third = world.enter(0, name="bb")
    assert world.states[third] == NOW
    assert world.failures[third] == FREE + 1


def test_lost_answer_is_repeated() -> None:
    world = World()
    world.full.add(0)
    lost = world.enter(0)
    assert lost not in world.states
    world.full.clear()
    assert world.states[world.enter(0, id=lost[1])] == NOW
    assert world.failures[lost] == 0
    assert len(world.shared) == 1
    world.leave(lost)
    world.lock_out()
    waits = world.enter(0)
    del world.states[waits]
    assert world.states[world.enter(0, id=waits[1])] == WAIT
    assert world.has(waits, NOW, after=1)


def test_attempts_of_a_worker_that_hangs_are_not_let_in() -> None:
    world = World()
    world.lock_out()
    inside = world.enter(1)
    hung = [world.enter(0) for _ in range(5)]
    waits = world.enter(1)
    for _ in range(4):
        world.pass_time(ASK_AGAIN)
        world.enter(1, id=waits[1])
    world.leave(inside)
    assert world.states[waits] == NOW
    assert len(world.shared) == 1
    # When it reacts again, its attempts wait at the end of the queue.
    assert world.states[world.enter(0, id=hung[0][1])] == WAIT
    world.leave(waits)
    assert world.states[hung[0]] == NOW


def test_attempt_that_gives_up_lets_the_next_one_in() -> None:
    world = World()
    world.lock_out()
    first, second = world.enter(0), world.enter(1)
    world.leave(first)
    assert world.has(second, NOW, after=1)


def test_queue_of_an_address_is_bounded_over_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "WAITING", 4)
    world = World()
    world.lock_out()
    states = [world.states[world.enter(key)] for key in range(6)]
    assert states == [WAIT] * 4 + [BUSY] * 2
    assert len(world.shared) == 4


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (LOGIN_ENTER, {}),
        (LOGIN_ENTER, {"id": "1", "source": HERE, "name": "0a"}),
        (LOGIN_ENTER, {"id": True, "source": HERE, "name": "0a"}),
        (LOGIN_ENTER, {"id": -1, "source": HERE, "name": "0a"}),
        (LOGIN_ENTER, {"id": 1, "name": "0a"}),
        (LOGIN_ENTER, {"id": 1, "source": HERE}),
        (LOGIN_ENTER, {"id": 1, "source": HERE, "name": None}),
        (LOGIN_ENTER, {"id": 1, "source": HERE, "name": "a" * 65}),
        (LOGIN_ENTER, {"id": 1, "source": "", "name": "0a"}),
        (LOGIN_ENTER, {"id": 1, "source": [HERE], "name": "0a"}),
        (LOGIN_ENTER, {"id": 1, "source": "a" * 65, "name": "0a"}),
        (LOGIN_LEAVE, {"mistake": "aa"}),
        (LOGIN_LEAVE, {"id": 1, "mistake": 7}),
        (LOGIN_LEAVE, {"id": 1, "mistake": "é"}),
        (LOGIN_LEAVE, {"id": 1, "mistake": "a" * 65}),
    ],
)
def test_bad_messages(kind: str, body: dict[str, Any]) -> None:
    world = World()
    with pytest.raises(BadMessageError):
        world.hear(0, kind, body)
    assert len(world.shared) == len(world.shared.table.records) == 0


def test_other_messages_are_left_alone() -> None:
    assert not World().hear(0, "serving", {})


def test_worker_cannot_end_attempts_of_others() -> None:
    world = World()
    attempt = world.enter(0)
    world.leave((1, attempt[1]))
    assert len(world.shared) == 1


def test_worker_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_penalties, "MAX_ATTEMPTS", 5)
    monkeypatch.setattr(penalties, "SIZE", 10)
    world = World()
    for number in range(100):
        world.fail(0, "00", f"10.0.0.{number}")
    assert len(world.shared.table.records) == 10
    for number in range(5):
        world.enter(0, f"10.1.0.{number}")
    with pytest.raises(BadMessageError):
        world.enter(0, THERE)
    world.enter(1, THERE)
    assert len(world.shared) == 6


def test_attempts_that_give_up_leave_nothing_behind() -> None:
    world = World()
    world.lock_out()
    stays = world.enter(1, THERE)
    for _ in range(1000):
        world.leave(world.enter(0))
    assert len(world.shared._due) < 200
    first = world.enter(0)
    for _ in range(1000):  # each wakes the first one
        world.leave(world.enter(0))
        world.shared.expire()
    assert len(world.shared._due) < 200
    assert world.has(first, NOW, after=1)
    world.leave(first)
    world.leave(stays)
    assert len(world.shared) == 0


def test_upgrade_goes_on_where_it_was() -> None:
    world = World()
    world.lock_out()
    inside = world.enter(0)
    world.pass_time(1)
    assert world.states[inside] == NOW
    first, second = world.enter(1), world.enter(0)
    state = json.loads(json.dumps(world.shared.state()))
    now = world.shared
    world.shared = SharedPenalties(now._send, now._clock)
    world.shared.take_over(state)
    assert json.loads(json.dumps(world.shared.state())) == state
    world.leave(inside, "00")  # a repetition, of the first mistake
    assert world.has(first, NOW, after=2)
    assert world.states[second] == WAIT
    # An attempt that entered before still ends, and so does one whose worker has ended.
    world.shared.remove(1)
    assert world.has(second, NOW, after=4)
    world.leave(second)
    assert len(world.shared) == 0
