"""Work of a connection that takes longer than a call, while the engine waits for its answer.

Rules of this file: tasks, and how a connection goes on after them; what the work is, the subclasses
know. A failure of the code must neither leave a client without an answer nor keep its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.log_events import log_fault

__all__ = ["BackgroundWork"]

logger = logging.getLogger("fastlisten.smtp")

_INTERNAL_ERROR = reply(451, "4.3.0", "Internal error; try again later")

_Given = TypeVar("_Given")


class BackgroundWork(EngineProtocol):
    """A connection that can run one task at a time for the engine."""

    __slots__ = ("_task",)

    def __init__(self, engine: SmtpEngine) -> None:
        super().__init__(engine)
        self._task: asyncio.Task[None] | None = None

    def _start(self, work: Callable[[_Given], Coroutine[Any, Any, None]], given: _Given) -> None:
        """Begin work that will answer the event the engine waits for.

        Args:
            work: the coroutine function.
            given: its argument.
        """
        self._task = asyncio.get_running_loop().create_task(self._work(work, given))

    async def _work(
        self, work: Callable[[_Given], Coroutine[Any, Any, None]], given: _Given
    ) -> None:
        try:
            await work(given)
        except Exception:
            self._log_fault()
            if self._transport is not None and self.engine.waiting:
                self.engine.reject(_INTERNAL_ERROR)
        self._task = None
        self._resume(lambda: None)

    def _resume(self, step: Callable[[], None]) -> None:
        """Go on after something has ended elsewhere, if the client is still connected.

        Args:
            step: called first; if it raises, the connection is aborted.
        """
        transport = self._transport
        if transport is None:
            return
        try:
            step()
            self._run()
        except Exception:
            self._log_fault()
            self._end_reason = "error"
            transport.abort()

    def _log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""
        context, text = self._log_context(), "%s: %s: internal error"
        values = (context.listener, context.address)
        log_fault(logger, "internal-error", text, *values, **context.fields)
