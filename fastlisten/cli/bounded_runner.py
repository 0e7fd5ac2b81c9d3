"""Runs the program's event loop, with a limit on how long its end may take.

Rules of this file: it does what `asyncio.Runner` does, with one difference. At its end
`asyncio.Runner` waits for every task that it has cancelled, so an application that ignores
cancellation would keep the process from ending.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["BoundedRunner"]

#: Seconds that cancelled tasks may take to end; the same as in the http handler.
CANCEL_PATIENCE = 5.0


class BoundedRunner:
    """Runs one coroutine on a new loop, then cancels all other tasks of the loop.

    Args:
        loop_factory: creates the loop.

    Attributes:
        left: where tasks that ignored their cancellation are waiting. If there are any, the loop
            stays open, and the process has to be ended without closing it.
    """

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop_factory = loop_factory
        self.left: list[str] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Create the loop, run a coroutine function on it, close it.

        Raises:
            BaseException: whatever the function or `loop_factory` raises.
        """
        runner = asyncio.Runner(loop_factory=self._loop_factory)
        try:
            runner.get_loop()
            runner.run(self._run_and_cancel(main))
        finally:
            if not self.left:
                runner.close()

    async def _run_and_cancel(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await main()
        finally:
            self.left = [_place(task) for task in await _cancel_others()]


async def _cancel_others() -> set[asyncio.Task[Any]]:
    """Cancel all other tasks, and those that they start; return those that have not ended."""
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
    """Return where a task is waiting: the innermost of its coroutines, outside of asyncio."""
    place = task.get_name()
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(coroutine):
        if coroutine.cr_frame is not None:
            code, line = coroutine.cr_code, coroutine.cr_frame.f_lineno
            if not code.co_filename.startswith(asyncio.__path__[0]):
                place = f"{code.co_qualname} ({code.co_filename}:{line})"
        coroutine = coroutine.cr_await
    return place
