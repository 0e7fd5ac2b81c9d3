"""Coroutines that start at once; those that suspend become a full task."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.loops import on_loops

from fastlisten.handlers.smtp.aiosmtpd.eager_tasks import EagerTasks

VARIABLE = contextvars.ContextVar("variable", default="nothing")


class Runner:
    """Runs coroutines as connections do: from a callback of the loop, outside any task."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.eager_tasks = EagerTasks(self.loop)

    async def run(
        self,
        coroutine: Coroutine[Any, Any, None],
        context: contextvars.Context | None = None,
        *,
        cancel: bool = False,
    ) -> asyncio.Task[None] | None:
        """Run a coroutine to its end; return what `EagerTasks.run` returned.

        Args:
            coroutine: what to run.
            context: where; a copy of the current one.
            cancel: cancel the task as soon as the coroutine suspends.
        """
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
            else:
                if cancel:
                    began.result().cancel()  # type: ignore[union-attr]

        self.loop.call_soon(begin)
        task = await began
        if task is not None:
            await ended
        return task

    async def end(self) -> None:
        """Close, and check that no task is left."""
        self.eager_tasks.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


def with_runner(test: Callable[[Runner], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test with a `Runner`, on every loop."""

    async def run() -> None:
        runner = Runner()
        await test(runner)
        await runner.end()

    return on_loops(run)


@with_runner
async def test_coroutine_that_does_not_suspend_creates_no_task(runner: Runner) -> None:
    seen = []

    async def hook() -> None:
        seen.append(asyncio.current_task())

    for _ in range(3):
        assert await runner.run(hook()) is None
    # The one spare task was the current one each time, and was not used up.
    assert seen[0] is not None
    assert len(set(seen)) == 1
    assert len(asyncio.all_tasks()) == 2


@with_runner
async def test_suspended_coroutine_continues_as_its_current_task(runner: Runner) -> None:
    seen = []

    async def hook() -> None:
        for pause in (0, 0.001, 0):
            seen.append(asyncio.current_task())
            await asyncio.sleep(pause)
        seen.append(asyncio.current_task())

    first, second = await runner.run(hook()), await runner.run(hook())
    assert first is not None
    assert second is not None
    assert first is not second
    assert set(seen[:4]) == {first}
    assert set(seen[4:]) == {second}


@with_runner
async def test_coroutine_gets_results_exceptions_and_timeouts(runner: Runner) -> None:
    caught = []

    async def hook() -> None:
        future = runner.loop.create_future()
        runner.loop.call_soon(future.set_result, 7)
        caught.append(await future)
        future = runner.loop.create_future()
        runner.loop.call_soon(future.set_exception, KeyError("x"))
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

    assert await runner.run(hook()) is not None
    assert caught == [7, "'x'", "timeout", "waited"]


@with_runner
async def test_exception_before_suspending_is_raised(runner: Runner) -> None:
    async def hook() -> None:
        raise KeyError("first")

    with pytest.raises(KeyError):
        await runner.run(hook())


@with_runner
async def test_exception_after_suspending_is_set_on_the_task(runner: Runner) -> None:
    async def hook() -> None:
        await asyncio.sleep(0)
        raise KeyError("later")

    task = await runner.run(hook())
    assert task is not None
    assert isinstance(task.exception(), KeyError)


@with_runner
async def test_context_variables_belong_to_the_connection(runner: Runner) -> None:
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
    await runner.run(hook("first"), one)
    await runner.run(hook("other"), other)
    await runner.run(hook("second"), one)
    assert seen[:6] == ["nothing", "first", "first", "nothing", "other", "other"]
    assert seen[6:] == ["first", "second", "second"]
    assert VARIABLE.get() == "nothing"


@with_runner
async def test_cancellation_reaches_the_coroutine(runner: Runner) -> None:
    ended = []

    async def hook(cancel_first: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        if cancel_first:
            task.cancel()
        else:
            runner.loop.call_later(0.001, task.cancel)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(cancel_first)
            raise

    # The first time, the spare task has not started either; later it has.
    for cancel_first in (True, False, True):
        task = await runner.run(hook(cancel_first))
        assert task is not None
        assert task.cancelled()
        await runner.run(nothing())
        await asyncio.sleep(0)
    assert ended == [True, False, True]


@with_runner
async def test_cancellation_before_the_task_has_begun(runner: Runner) -> None:
    """A client may be gone in the iteration in which the coroutine suspends."""
    ended = []

    async def hook(swallow: bool) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(swallow)
            await asyncio.sleep(0)
            if not swallow:
                raise

    for swallow in (False, True):
        task = await runner.run(hook(swallow), cancel=True)
        assert task is not None
        assert task.cancelled() is not swallow
    assert ended == [False, True]


async def nothing() -> None:
    """Does not suspend."""


@with_runner
async def test_coroutine_cancelling_itself_leaves_no_trace(runner: Runner) -> None:
    seen = []

    async def hook(cancel: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task)
        if cancel:
            task.cancel()

    for _ in range(2):
        assert await runner.run(hook(True)) is None
        assert await runner.run(hook(False)) is None
    assert len(set(seen)) == 3


@with_runner
async def test_run_from_within_a_task(runner: Runner) -> None:
    seen = []

    async def hook() -> None:
        seen.append(asyncio.current_task())

    # Within a task, the coroutine becomes a task of its own at once.
    task = runner.eager_tasks.run(hook(), contextvars.copy_context(), seen.append)
    assert seen == []
    assert task is not None
    await task
    await asyncio.sleep(0)
    assert seen == [task, task]
