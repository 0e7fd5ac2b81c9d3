"""The event loop of the program, whose end does not wait for ever.

Rules of this file: an `asyncio.Runner` in all but one thing. At its end that waits for every task
that it has cancelled, and an application that swallows its cancellation would keep the process.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["BoundedRunner"]

#: How long tasks may take to end when they are cancelled, in seconds, as with the handlers.
CANCEL_PATIENCE = 5.0


class BoundedRunner:
    """Runs one coroutine on a loop of its own, then cancels what else runs there.

    Args:
        loop_factory: makes the loop.

    Attributes:
        left: where the tasks that have ignored their cancellation are waiting. If there are any,
            the loop remains open and the process has to be ended without it.
    """

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop_factory = loop_factory
        self.left: list[str] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Make the loop, run a coroutine function on it, close it.

        Raises:
            BaseException: what the function or the loop's factory raises.
        """
        runner = asyncio.Runner(loop_factory=self._loop_factory)
        try:
            runner.get_loop()
            runner.run(self._to_the_end(main))
        finally:
            if not self.left:
                runner.close()

    async def _to_the_end(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await main()
        finally:
            self.left = [_place(task) for task in await _cancel_others()]


async def _cancel_others() -> set[asyncio.Task[Any]]:
    """Cancel all other tasks, and those that they start meanwhile; return those that go on."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + CANCEL_PATIENCE
    tasks = _others()
    while tasks and loop.time() < ends:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=ends - loop.time())
        tasks = _others()
    return tasks


def _others() -> set[asyncio.Task[Any]]:
    me = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not me}


def _place(task: asyncio.Task[Any]) -> str:
    """Return where a task is waiting, in the innermost of the coroutines that wait."""
    place = task.get_name()
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(coroutine):
        if coroutine.cr_frame is not None:
            code, line = coroutine.cr_code, coroutine.cr_frame.f_lineno
            if not code.co_filename.startswith(asyncio.__path__[0]):
                place = f"{code.co_qualname} ({code.co_filename}:{line})"
        coroutine = coroutine.cr_await
    return place
