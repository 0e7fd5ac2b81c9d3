"""Coroutines that are stepped by hand, and cost a task only if they suspend.

Rules of this file: nothing of SMTP. A coroutine may do all that it may do in a task of its own:
ask for the current task, be cancelled, use `asyncio.timeout`.

Most hooks never suspend, and a task for each would cost more than what it runs. So one spare task
per loop waits at a gate. A coroutine's first step is made by hand with the spare declared to be
the current task (`asyncio._enter_task`, which asyncio documents for task implementations of
others). If the coroutine ends within it, the spare is as new; if it suspends, the spare is the
task that it has seen, passes the gate, and goes on with it:

    spare waits at the gate --first step suspended--> spare waits for what the step waits for
        ^      |
        +------+  first step ended
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from asyncio import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any

__all__ = ["Steps"]

_Coroutine = Coroutine[Any, Any, None]


class _Spare:
    """A task that waits at a gate for a coroutine that has been begun."""

    __slots__ = ("context", "coroutine", "gate", "started", "task", "waits_for")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gate: asyncio.Future[None] = loop.create_future()
        self.coroutine: _Coroutine | None = None
        self.context: contextvars.Context | None = None
        self.waits_for: Any = None
        self.started = False
        self.task: asyncio.Task[None] = asyncio.Task(
            self._main(), loop=loop, name="spare task for hooks that suspend"
        )

    async def _main(self) -> None:
        # Tasks take nothing but coroutines from Python 3.12 on.
        await self._drive()

    @types.coroutine
    def _drive(self) -> Generator[Any, Any, None]:
        """Wait at the gate, then be the coroutine that was given."""
        cancelled: BaseException | None = None
        self.started = True
        try:
            yield from self.gate
        except asyncio.CancelledError as error:
            cancelled = error
            if self.coroutine is None:
                raise
        coroutine, context = self.coroutine, self.context
        if coroutine is None or context is None:
            return
        try:
            if cancelled is None:
                waits_for = self.waits_for
            else:
                waits_for = context.run(coroutine.throw, cancelled)
            self.waits_for = None
            while True:
                try:
                    value = yield waits_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:
                    waits_for = context.run(coroutine.throw, error)
                else:
                    waits_for = context.run(coroutine.send, value)
        except StopIteration:
            return


class Steps:
    """Runs coroutines on one loop. Not for use by other threads."""

    __slots__ = ("_loop", "_spare")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._spare: _Spare | None = None

    def run(
        self,
        coroutine: _Coroutine,
        context: contextvars.Context,
        done: Callable[[asyncio.Task[None]], object],
    ) -> asyncio.Task[None] | None:
        """Run a coroutine, up to its end if it does not suspend.

        Args:
            coroutine: not begun.
            context: of all its steps; not entered.
            done: called with the task after the end of a coroutine that suspended.

        Returns:
            None if the coroutine has ended; else the task that goes on with it.

        Raises:
            BaseException: what the coroutine raised in its first step.
        """
        loop, spare = self._loop, self._spare
        if spare is None or spare.gate.done() or spare.task.cancelling():  # by somebody
            spare = self._spare = _Spare(loop)
        task = spare.task
        if asyncio.current_task(loop) is None:
            _enter_task(loop, task)
            try:
                spare.waits_for = context.run(coroutine.send, None)
                if task.cancelling() and not spare.started:
                    # A task that is cancelled before its first step never takes one.
                    context.run(coroutine.throw, asyncio.CancelledError())
                    coroutine.close()  # it does not want to hear of it
                    raise asyncio.CancelledError
            except StopIteration:
                return None
            finally:
                _leave_task(loop, task)
        # Else a task is running, which two cannot at once: the first step is made by the spare.
        self._spare = None
        spare.coroutine, spare.context = coroutine, context
        del spare.task  # what it raises holds frames that hold the spare
        task.add_done_callback(done)
        if not spare.gate.done():
            spare.gate.set_result(None)
        return task

    def close(self) -> None:
        """Let the spare task end in the loop's next round."""
        spare, self._spare = self._spare, None
        if spare is not None and not spare.gate.done():
            spare.gate.set_result(None)
