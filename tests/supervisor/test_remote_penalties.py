"""Penalties of several workers that ask one supervisor, which may not answer, in virtual time.

Rules of this file: no processes. The workers' messages go through JSON to a real table; while the
supervisor is `stopped` they wait, at most `ROOM` of each worker.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from support.figures import show
from support.loops import run_virtually

from fastlisten.mail.logins import penalties
from fastlisten.mail.logins.penalties import FREE, LoginsBusyError
from fastlisten.runtime.supervisor import remote_penalties
from fastlisten.runtime.supervisor.channel import ChannelFullError
from fastlisten.runtime.supervisor.login_penalties import ASK_AGAIN, SharedPenalties
from fastlisten.runtime.supervisor.remote_penalties import (
    ANSWER_SECONDS,
    SILENCE,
    RemotePenalties,
)

HERE = "192.0.2.1"

#: A digest.
NAME = "0a"

ROOM = 8


def now() -> float:
    return asyncio.get_running_loop().time()


class World:
    """A supervisor's table and its workers.

    Attributes:
        shared: the table.
        workers: under test.
        heard: how many messages the supervisor has taken.
    """

    def __init__(self, workers: int = 2) -> None:
        loop = asyncio.get_running_loop()
        self.shared = SharedPenalties(self._answer, loop.time)
        self.workers = [
            RemotePenalties(self._sender(key), b"k" * 32, loop.time) for key in range(workers)
        ]
        self.heard = 0
        self._stopped = False
        self._unread: list[tuple[int, str, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    def _sender(self, key: int) -> Callable[[str, Mapping[str, Any]], None]:
        def send(kind: str, body: Mapping[str, Any]) -> None:
            if sum(one[0] == key for one in self._unread) >= ROOM:
                raise ChannelFullError("full")
            self._unread.append((key, kind, json.dumps(body)))
            asyncio.get_running_loop().call_soon(self._take)

        return send

    def _take(self) -> None:
        while self._unread and not self._stopped:
            key, kind, text = self._unread.pop(0)
            self.heard += 1
            assert self.shared.receive(key, kind, json.loads(text))
        self._expire_later()

    def _expire_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.shared.deadline
        if due is not None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self.shared.expire()
        self._expire_later()

    def _answer(self, key: int, kind: str, body: Mapping[str, Any]) -> None:
        text = json.dumps(body)
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self.workers[key].receive(json.loads(text)))

    def stop(self) -> None:
        self._stopped = True
        self._expire_later()

    def go_on(self) -> None:
        self._stopped = False
        self._take()

    async def fail(self, key: int, mistake: bytes, address: str = HERE) -> float:
        """Fail in one of the workers; return how long the attempt waited."""
        began = now()
        entered = await self.workers[key].enter(address, NAME)
        waited = now() - began
        entered.leave(mistake)
        return waited


def run(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a test with two workers."""

    async def main() -> None:
        world = World()
        await test(world)
        await asyncio.sleep(0.1)
        assert len(world.shared) == 0
        assert not any(one._attempts or one._unsent for one in world.workers)
        world.stop()

    run_virtually(main())


def test_workers_are_as_slow_as_one() -> None:
    async def test(world: World) -> None:
        waited = [await world.fail(number % 2, b"%d" % number) for number in range(11)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30])
        assert all(len(one.own) == 0 for one in world.workers)
        show(f"seconds before each attempt: {', '.join(f'{one:.0f}' for one in waited)}")

    run(test)


def test_parallel_attempts_in_all_workers_take_turns() -> None:
    async def test(world: World) -> None:
        entered: list[float] = []
        began = now()

        async def attempt(number: int) -> None:
            one = await world.workers[number % 2].enter(HERE, NAME)
            entered.append(now() - began)
            await asyncio.sleep(0.25)
            one.leave(b"%d" % number)

        await asyncio.gather(*(attempt(number) for number in range(7)))
        expected = [0.0, 0.0, 0.0]
        for pause in (1, 2, 4, 8):
            expected.append(expected[-1] + 0.25 + pause)
        assert entered == pytest.approx(expected)

    run(test)


def test_failures_are_told() -> None:
    async def test(world: World) -> None:
        await world.fail(0, b"a")
        entered = await world.workers[1].enter(HERE, "0b")
        assert entered.failures() == 1
        entered.leave(None)
        entered.leave(b"x")  # it has ended
        third = await world.workers[0].enter(HERE, "0b")
        assert third.failures() == 1
        third.leave(None)

    run(test)


def test_failures_of_a_name_are_told() -> None:
    async def test(world: World) -> None:
        for number in range(4):
            await world.fail(number % 2, b"%d" % number, f"198.51.100.{number}")
        for worker in world.workers:
            entered = await worker.enter(HERE, NAME)
            assert entered.failures() == 4
            entered.leave(None)
            other = await worker.enter(HERE, "0b")
            assert other.failures() == 0
            other.leave(None)

    run(test)


def test_nothing_is_asked_without_an_address() -> None:
    async def test(world: World) -> None:
        assert [await world.fail(0, b"%d" % number, "") for number in range(9)] == [0] * 9
        assert world.heard == 0

    run(test)


def test_supervisor_that_does_not_answer() -> None:
    async def test(world: World) -> None:
        world.stop()
        worker = world.workers[0]
        waited = [await world.fail(0, b"%d" % number) for number in range(FREE + 1)]
        assert waited == pytest.approx([ANSWER_SECONDS, 0, 0, 1])
        assert len(worker.own) == 1
        await asyncio.sleep(SILENCE)
        # It is asked again, in vain.
        assert await world.fail(0, b"x", "192.0.2.2") == pytest.approx(ANSWER_SECONDS)
        world.go_on()
        await asyncio.sleep(0.1)
        # Its late answers tell that it reacts again; the attempts themselves were given up.
        heard = world.heard
        assert await world.fail(0, b"y", "192.0.2.3") == 0
        await asyncio.sleep(0.1)
        assert world.heard == heard + 2
        assert len(worker.own) == 2

    run(test)


def test_supervisor_that_stops_while_attempts_wait() -> None:
    async def test(world: World) -> None:
        for number in range(FREE + 1):
            await world.fail(0, b"%d" % number)
        began = now()
        waiting = asyncio.create_task(world.workers[1].enter(HERE, NAME))
        await asyncio.sleep(0.5)
        world.stop()
        entered = await waiting
        assert now() - began == pytest.approx(ASK_AGAIN + ANSWER_SECONDS)
        entered.leave(None)
        world.go_on()

    run(test)


def test_long_wait_is_asked_for_again_and_again() -> None:
    async def test(world: World) -> None:
        for number in range(9):
            await world.fail(number % 2, b"%d" % number)
        assert await world.fail(1, b"x") == pytest.approx(30)
        assert len(world.workers[1].own) == 0

    run(test)


def test_ends_wait_for_a_supervisor_that_does_not_read() -> None:
    async def test(world: World) -> None:
        worker = world.workers[0]
        entered = [await worker.enter(f"192.0.2.{number}", NAME) for number in range(ROOM + 4)]
        world.stop()
        for one in entered:
            one.leave(b"x")
        assert len(worker._unsent) == 4
        # The channel is full, so there is nothing to wait for.
        assert await world.fail(0, b"x", "198.51.100.1") == 0
        assert len(worker.own) == 1
        assert len(worker._unsent) == 5
        world.go_on()
        assert await world.fail(0, b"y", "198.51.100.2") == 0
        await asyncio.sleep(0.1)
        assert {one.failures for one in world.shared.table.records.values()} == {1}
        assert len(world.shared.table.records) == ROOM + 5

    run(test)


def test_cancelled_attempt_is_given_up() -> None:
    async def test(world: World) -> None:
        for number in range(FREE):
            await world.fail(0, b"%d" % number)
        waiting = asyncio.create_task(world.workers[0].enter(HERE, NAME))
        await asyncio.sleep(0.5)
        assert len(world.shared) == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await asyncio.sleep(0.1)
        assert len(world.shared) == 0

    run(test)


def test_full_queue_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "WAITING", 0)

    async def test(world: World) -> None:
        for number in range(FREE):
            await world.fail(number % 2, b"%d" % number)
        for key in (0, 1):
            with pytest.raises(LoginsBusyError, match=HERE):
                await world.workers[key].enter(HERE, NAME)

    run(test)


def test_worker_with_too_many_attempts_uses_its_own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_penalties, "MAX_ATTEMPTS", 2)

    async def test(world: World) -> None:
        worker = world.workers[0]
        entered = [await worker.enter(f"192.0.2.{number}", NAME) for number in range(3)]
        assert len(world.shared) == 2
        assert len(worker.own) == 1
        for one in entered:
            one.leave(None)
        assert len(worker.own) == 0

    run(test)
