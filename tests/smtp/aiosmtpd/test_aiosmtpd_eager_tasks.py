"""Coroutines that start at once: a task only for those that suspend, with all that a task gives."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.loops import on_loops

from fastlisten.handlers.smtp.aiosmtpd.eager_tasks import EagerTasks

VARIABLE = contextvars.ContextVar("variable", default="nothing")


class Runs:
    """Runs coroutines as connections do, from callbacks of the loop, where there is no task."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.eager_tasks = EagerTasks(self.loop)
        self.tasks: list[asyncio.Task[None] | None] = []

    async def run(
        self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context | None = None
    ) -> asyncio.Task[None] | None:
        """Return what `EagerTasks.run` returned, after the coroutine's end."""
        began: asyncio.Future[asyncio.Task[None] | None] = self.loop.create_future()
        ended: asyncio.Future[None] = self.loop.create_future()

        def begin() -> None:
            try:
                began.set_result(
                    self.eager_tasks.run(
                        coroutine,
                        contextvars.copy_context() if context is None else context,
                        lambda task: ended.set_result(None),
                    )
                )
            except BaseException as error:
                began.set_exception(error)

        self.loop.call_soon(begin)
        task = await began
        if task is not None:
            await ended
        return task

    async def end(self) -> None:
        """Close, and fail if a task is left."""
        self.eager_tasks.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


def with_runs(test: Callable[[Runs], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Give a test `Runs`, on every loop."""

    async def run() -> None:
        runs = Runs()
        await test(runs)
        await runs.end()

    return on_loops(run)


@with_runs
async def test_what_does_not_suspend_costs_no_task(runs: Runs) -> None:
    seen = []

    async def hook() -> None:
        seen.append(asyncio.current_task())

    for _ in range(3):
        assert await runs.run(hook()) is None
    # The one spare task was declared current each time, and was not used up.
    assert seen[0] is not None
    assert len(set(seen)) == 1
    assert len(asyncio.all_tasks()) == 2


@with_runs
async def test_what_suspends_goes_on_as_the_task_that_it_saw(runs: Runs) -> None:
    seen = []

    async def hook() -> None:
        for pause in (0, 0.001, 0):
            seen.append(asyncio.current_task())
            await asyncio.sleep(pause)
        seen.append(asyncio.current_task())

    first, second = await runs.run(hook()), await runs.run(hook())
    assert first is not None
    assert second is not None
    assert first is not second
    assert set(seen[:4]) == {first}
    assert set(seen[4:]) == {second}


@with_runs
async def test_results_and_exceptions_reach_the_coroutine(runs: Runs) -> None:
    caught = []

    async def hook() -> None:
        future = runs.loop.create_future()
        runs.loop.call_soon(future.set_result, 7)
        caught.append(await future)
        future = runs.loop.create_future()
        runs.loop.call_soon(future.set_exception, KeyError("x"))
        try:
            await future
        except KeyError as error:
            caught.append(str(error))
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            caught.append("timeout")
        try:
            await asyncio.wait_for(asyncio.sleep(60), 0.001)
        except TimeoutError:
            caught.append("waited")

    assert await runs.run(hook()) is not None
    assert caught == [7, "'x'", "timeout", "waited"]


@with_runs
async def test_an_exception_of_the_first_step_is_raised(runs: Runs) -> None:
    async def hook() -> None:
        raise KeyError("first")

    with pytest.raises(KeyError):
        await runs.run(hook())


@with_runs
async def test_an_exception_of_a_later_step_is_the_tasks(runs: Runs) -> None:
    async def hook() -> None:
        await asyncio.sleep(0)
        raise KeyError("later")

    task = await runs.run(hook())
    assert task is not None
    assert isinstance(task.exception(), KeyError)


@with_runs
async def test_context_variables_are_the_connections(runs: Runs) -> None:
    seen = []

    async def hook(value: str) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(value)
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())
        child = asyncio.create_task(look())
        await child

    async def look() -> None:
        seen.append(VARIABLE.get())

    one, other = contextvars.copy_context(), contextvars.copy_context()
    await runs.run(hook("first"), one)
    await runs.run(hook("other"), other)
    await runs.run(hook("second"), one)
    assert seen[:6] == ["nothing", "first", "first", "nothing", "other", "other"]
    assert seen[6:] == ["first", "second", "second"]
    assert VARIABLE.get() == "nothing"


@with_runs
async def test_cancelling_reaches_the_coroutine(runs: Runs) -> None:
    ended = []

    async def hook(cancel_first: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        if cancel_first:
            task.cancel()
        else:
            runs.loop.call_later(0.001, task.cancel)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(cancel_first)
            raise

    # At first the spare has not taken its first step either, later it has.
    with pytest.raises(asyncio.CancelledError):
        await runs.run(hook(True))
    for cancel_first in (False, True):
        task = await runs.run(hook(cancel_first))
        assert task is not None
        assert task.cancelled()
        await runs.run(nothing())
        await asyncio.sleep(0)
    assert ended == [True, False, True]


async def nothing() -> None:
    """Does not suspend."""


@with_runs
async def test_a_coroutine_that_cancels_itself_and_ends_spoils_nothing(runs: Runs) -> None:
    seen = []

    async def hook(cancel: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task)
        if cancel:
            task.cancel()

    for _ in range(2):
        assert await runs.run(hook(True)) is None
        assert await runs.run(hook(False)) is None
    assert len(set(seen)) == 3


@with_runs
async def test_a_task_that_is_running_is_not_disturbed(runs: Runs) -> None:
    seen = []

    async def hook() -> None:
        seen.append(asyncio.current_task())

    # From within a task: the coroutine becomes a task at once.
    task = runs.eager_tasks.run(hook(), contextvars.copy_context(), seen.append)
    assert seen == []
    assert task is not None
    await task
    await asyncio.sleep(0)
    assert seen == [task, task]
