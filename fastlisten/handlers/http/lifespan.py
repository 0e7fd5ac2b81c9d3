"""The start and the end of an application (ASGI lifespan).

Rules of this file: ASGI only, no connection. An application has one lifespan, however many
listeners of a process serve it: the first to start starts it, the last to stop stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any, ClassVar, Literal

from fastlisten.errors import FastlistenError
from fastlisten.handlers.http.asgi import Application

__all__ = ["Lifespan", "LifespanError"]

logger = logging.getLogger("fastlisten.http")

#: How many seconds an application may take to shut down. Together with the drain before it, this is
#: less than service managers wait before they kill (systemd 90 s).
SHUTDOWN_PATIENCE = 30.0

#: How many seconds an application may take to react to cancellation.
CANCEL_PATIENCE = 5.0


class LifespanError(FastlistenError):
    """An application could not start or end; the text is the application's own if it gave one."""


class Lifespan:
    """One application on one loop.

    Args:
        app: the application.
        mode: ``auto``: an application without lifespan support is served without it; ``on``: that
            is an error; ``off``: lifespan is not used.

    Attributes:
        shared: what the application has put into ``state``; each request gets a copy.
    """

    _all: ClassVar[dict[tuple[int, int], Lifespan]] = {}

    def __init__(self, app: Application, mode: Literal["auto", "on", "off"]) -> None:
        self.shared: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._users = 0
        self._key = (0, 0)
        self._cancelled = False
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @classmethod
    async def enter(cls, app: Application, mode: Literal["auto", "on", "off"]) -> Lifespan:
        """Start an application, or share it if it has been started on this loop.

        Raises:
            LifespanError: it could not start.
        """
        key = (id(app), id(asyncio.get_running_loop()))
        found = cls._all.get(key)
        if found is None or found._mode != mode:
            found = cls(app, mode)
            if mode != "off":
                found._key = key
                cls._all[key] = found
                found._start()
        found._users += 1
        try:
            if found._started is not None:
                await asyncio.shield(found._started)
        except BaseException:
            with contextlib.suppress(LifespanError):  # the first failure is the one to report
                await found.leave()
            raise
        return found

    async def leave(self) -> None:
        """End the application if no other listener uses it.

        Raises:
            LifespanError: it could not end.
        """
        self._users -= 1
        if self._users or self._task is None:
            return
        if self._all.get(self._key) is self:
            del self._all[self._key]
        task, self._task = self._task, None
        assert self._started is not None
        assert self._ended is not None
        late = False
        if self._started.done() and not self._started.exception() and not task.done():
            await self._events.put({"type": "lifespan.shutdown"})
            await asyncio.wait(
                (task, self._ended), timeout=SHUTDOWN_PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            late = not (task.done() or self._ended.done())
        self._cancelled = True
        task.cancel()
        # Do not wait forever for an application that ignores its cancellation.
        _, stuck = await asyncio.wait((task,), timeout=CANCEL_PATIENCE)
        if late:
            text = f"the application has not finished its shutdown within {SHUTDOWN_PATIENCE:g} s"
            raise LifespanError(text)
        if stuck:
            raise LifespanError("the application ignores the cancellation of its lifespan")
        if self._ended.done():
            self._ended.result()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._started, self._ended = loop.create_future(), loop.create_future()
        for future in (self._started, self._ended):
            # The waiting code may have been cancelled.
            future.add_done_callback(lambda done: done.exception())
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run(self._started, self._ended))

    async def _run(self, started: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.shared,
        }
        try:
            await self._app(scope, self._events.get, self._send)
        except BaseException as error:
            # This includes SystemExit, which, raised in a task, would silently end the process.
            ends = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            if ends and self._cancelled:
                raise
            self._failed(error, started, ended)
        finally:
            if not started.done():
                self._unknown(started)

    def _failed(
        self, error: BaseException, started: asyncio.Future[None], ended: asyncio.Future[None]
    ) -> None:
        if not started.done():
            # An application without lifespan support may raise anything, but not SystemExit.
            if self._mode == "on" or not isinstance(error, Exception):
                logger.error("the application failed in its lifespan", exc_info=error)
                text = f"the application failed to start: {type(error).__name__}: {error}"
                started.set_exception(LifespanError(text))
            else:
                logger.debug("the application does not support lifespan: %r", error)
        elif started.exception() is None and not ended.done():
            logger.error("the application failed in its lifespan", exc_info=error)
            text = f"the application failed to end: {type(error).__name__}: {error}"
            ended.set_exception(LifespanError(text))

    def _unknown(self, started: asyncio.Future[None]) -> None:
        """The application has returned, or raised, before it said whether it has started."""
        if self._mode == "on":
            started.set_exception(LifespanError("the application does not support lifespan"))
        else:
            started.set_result(None)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        """Handle a message of the application."""
        assert self._started is not None
        assert self._ended is not None
        kind = message["type"]
        future = {"startup": self._started, "shutdown": self._ended}.get(
            kind.removeprefix("lifespan.").partition(".")[0]
        )
        if future is None or not kind.endswith((".complete", ".failed")):
            raise RuntimeError(f"{kind!r} is not a lifespan message")
        if future.done() or (future is self._ended and not self._started.done()):
            raise RuntimeError(f"{kind!r} is not expected now")
        if kind.endswith(".complete"):
            future.set_result(None)
        else:
            what = "start" if future is self._started else "end"
            said = message.get("message") or "it does not say why"
            future.set_exception(LifespanError(f"the application failed to {what}: {said}"))
