"""Coroutines that start at once and cost a task only if they suspend.

Rules of this file: nothing about SMTP. A coroutine may do whatever it may do in a task of its own:
ask for the current task, be cancelled, use `asyncio.timeout`.

Most hooks never suspend. With a plain task for each, a session of one message costs 3 % more CPU
with aiosmtpd's Sink (one hook), 4 to 8 % with hooks for RCPT and DATA, and 11 to 15 % with five
hooks; up to 23 % where the client pipelines, because each hook splits the replies. (Measured on
CPython 3.11, uvloop: 0.5 us for a coroutine here, 2.5 us for a task.) Python 3.12 has the same in
`asyncio.Task(..., eager_start=True)`, for 0.4 us: once 3.11 is no longer supported, this file goes.

One spare task per loop waits at a gate. The first step of a coroutine is run with the spare
declared to be the current task (`asyncio._enter_task`, documented for other implementations of
tasks). If the coroutine ends in it, the spare is free again. If it suspends, it has seen the spare
as its task, so the spare passes the gate and runs the rest:

    spare waits at the gate --first step suspended--> spare runs the rest of the coroutine
        ^      |
        +------+  first step ended the coroutine
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any

__all__ = ["EagerTasks"]

_Coroutine = Coroutine[Any, Any, None]


class _AlwaysStarted(Coroutine[Any, Any, None]):
    """A generator as a coroutine that runs up to its first yield before anything is thrown into it.

    A task that is cancelled before its first step takes none: asyncio throws CancelledError into a
    coroutine that has not begun, so none of its code runs. The coroutine behind a spare has begun,
    and must hear of it.
    """

    __slots__ = ("_generator", "_started")

    def __init__(self, generator: Generator[Any, Any, None]) -> None:
        self._generator = generator
        self._started = False

    def send(self, value: Any) -> Any:
        self._started = True
        return self._generator.send(value)

    def throw(self, error: Any, *_: Any) -> Any:
        try:
            if not self._started:
                self.send(None)
            return self._generator.throw(error)
        finally:
            del error  # its traceback holds this frame

    def close(self) -> None:
        self._generator.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._generator


class _Spare:
    """A task that waits at a gate for a coroutine whose first step has suspended."""

    __slots__ = ("context", "coroutine", "gate", "task", "waits_for")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gate: asyncio.Future[None] = loop.create_future()
        self.coroutine: _Coroutine | None = None
        self.context: contextvars.Context | None = None
        self.waits_for: Any = None
        self.task: asyncio.Task[None] = asyncio.Task(
            _AlwaysStarted(self._drive()), loop=loop, name="spare task for hooks that suspend"
        )

    def _drive(self) -> Generator[Any, Any, None]:
        """Wait at the gate, then run the rest of the coroutine that was given."""
        cancelled: BaseException | None = None
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


class EagerTasks:
    """Runs coroutines on one loop. Not thread-safe."""

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
        """Run a coroutine; to its end, if it does not suspend.

        Args:
            coroutine: not started yet.
            context: for all its steps; must not be entered.
            done: called with the task when a coroutine that suspended has ended.

        Returns:
            None if the coroutine has ended, else the task that runs the rest.

        Raises:
            BaseException: whatever the coroutine raised in its first step.
        """
        loop, spare = self._loop, self._spare
        if spare is None or spare.gate.done() or spare.task.cancelling():  # a hook cancelled it
            spare = self._spare = _Spare(loop)
        task = spare.task
        if asyncio.current_task(loop) is None:
            _enter_task(loop, task)
            try:
                spare.waits_for = context.run(coroutine.send, None)
            except StopIteration:
                return None
            finally:
                _leave_task(loop, task)
        # Otherwise a task is running, and there can be only one: the spare takes the first step.
        self._spare = None
        spare.coroutine, spare.context = coroutine, context
        del spare.task  # its exception would keep frames alive, and they the spare
        task.add_done_callback(done)
        if not spare.gate.done():
            spare.gate.set_result(None)
        return task

    def close(self) -> None:
        """Let the spare task end in the loop's next iteration."""
        spare, self._spare = self._spare, None
        if spare is not None and not spare.gate.done():
            spare.gate.set_result(None)
