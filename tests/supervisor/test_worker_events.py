"""A process that sends too much, and one that does not read: the others get their turn, it stops.

Rules of this file: channels are real, there are no processes. Time passes when a message is taken.
"""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import PATIENCE

from fastlisten.runtime.supervisor import worker_events
from fastlisten.runtime.supervisor.channel import Channel, ChannelFullError
from fastlisten.runtime.supervisor.worker_events import WorkerEvents
from fastlisten.runtime.supervisor.worker_process import State, WorkerProcess

Pair = tuple[WorkerProcess, Channel]


class Slow:
    """A part that takes every message, for half of a turn; also the clock.

    Attributes:
        taken: how many messages.
    """

    def __init__(self) -> None:
        self.taken = 0

    def receive(self, key: int, kind: str, body: Any) -> bool:
        self.taken += 1
        return True

    def monotonic(self) -> float:
        return self.taken * worker_events._LONGEST_TURN / 2


class NoQueue:
    """All parts of a server that has started, and cannot open queues again."""

    started = True

    def receive(self, key: int, kind: str, body: Any) -> bool:
        return False

    def open_queues(self, worker: int) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    def changes(self) -> dict[str, Any]:
        return {}

    def add(self, key: int, number: int) -> None:
        """Nothing is remembered."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = Channel.pair()
    yield WorkerProcess(1, 0, 0, ours, State.SERVING), theirs
    ours.close()
    theirs.close()


def test_turn_ends_after_some_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    process, worker = pair
    slow: Any = Slow()
    monkeypatch.setattr(worker_events, "time", slow)
    events = WorkerEvents(slow, slow, slow, slow, slow, slow, slow)
    for _ in range(20):
        worker.send("any", {})
    events.take_messages(process)
    assert slow.taken == 2
    events.take_messages(process)
    assert slow.taken == 4
    # One that has ended is heard to the end.
    events.take_messages(process, PATIENCE)
    assert slow.taken == 20


def test_queue_that_cannot_listen_any_more_does_not_end_the_server(pair: Pair) -> None:
    process, worker = pair
    process.state = State.STARTING
    parts: Any = NoQueue()
    worker.send("ready", {})
    WorkerEvents(parts, parts, parts, parts, parts, parts, parts).take_messages(process)
    message = worker.receive()
    assert message is not None
    assert message.kind == "accept"


def test_process_with_a_full_channel_is_told_to_stop_by_a_signal(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, worker = pair
    sent: list[signal.Signals] = []
    monkeypatch.setattr(WorkerProcess, "kill", lambda self, number: sent.append(number))
    process.stop(PATIENCE)
    assert sent == []
    process.state = State.SERVING
    with contextlib.suppress(ChannelFullError):
        while True:
            process.channel.send("any", {})
    process.stop(PATIENCE)
    assert sent == [signal.SIGTERM]
    message = worker.receive()
    assert message is not None
    assert message.kind == "stop"
