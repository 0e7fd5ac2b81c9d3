"""A worker: the handlers and listeners of a plan in one process, from creation to drain.

    Worker(plan) ─> make_handlers ─> start ─> accept ─> run ─> shutdown
                    their modules    handlers  sockets   until   drain, then
                    are imported     are ready listen    stop()  handlers stop

While it runs, a `Transition` (reload/transition.py) takes it to another plan.

Rules of this file: the worker is given what it shares with other workers (bound sockets, the arena,
its member number there). It opens no sockets, forks nothing, sends no signals, and does not know
about other processes that serve the same listeners.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence

from fastlisten._arena import Arena
from fastlisten._core import Engine
from fastlisten._tls import TlsSettings
from fastlisten.config import ListenerSettings
from fastlisten.errors import ConfigurationError, FastlistenError, Problem
from fastlisten.handlers.base import Handler, HandlerSettings
from fastlisten.log_events import log
from fastlisten.loop.engines import engine_for
from fastlisten.runtime.control import Control
from fastlisten.runtime.drain import drain
from fastlisten.runtime.handler_factory import handler_kind, handler_settings, make_handler
from fastlisten.runtime.listener import ConnectionPolicy, Listener, State
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.loaded_code import LoadedCode
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all

__all__ = ["StoppedError", "Worker"]

logger = logging.getLogger("fastlisten")


class StoppedError(FastlistenError):
    """The server was asked to stop before it had started."""


class Worker:
    """Serves the listeners of a plan in this process.

    Args:
        plan: the server's plan.
        number: the number of this worker within the server, for counters and metrics.

    Attributes:
        plan: as given.
        number: as given.
        control: the server's control, for handlers that manage the server.
        handlers: the handlers with the settings of their listeners; set by `make_handlers`.
        given: what the current handlers were given, by id of their listener.
        listeners: in the order of the configuration; set by `accept`.
        code: the code of others that handlers have loaded.
        ended: `shutdown` has finished.
    """

    def __init__(self, plan: Plan, number: int = 0) -> None:
        self.plan = plan
        self.number = number
        self.control: Control | None = None
        self.handlers: list[tuple[ListenerSettings, Handler]] = []
        self.given: dict[str, HandlerSettings] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.code = LoadedCode()
        self.ended = False
        self._sockets: Sequence[BoundSocket] = ()
        # In order of start, by id(): a class of others may not be hashable.
        self._started: dict[int, Handler] = {}
        self._engine: Engine | None = None
        self._arena: Arena | None = None
        self._member = 0
        # Listeners that a reload has removed, until their last connection ends.
        self._leaving: list[Listener] = []
        self._drains: set[asyncio.Task[None]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None
        self._at_once: asyncio.Event | None = None

    # -- from the plan to a drained process

    def make_handlers(self, control: Control) -> None:
        """Import what the configuration names, and make the handler of each listener.

        Args:
            control: the server's control, for handlers that manage the server.

        Raises:
            ConfigurationError: with all handlers that cannot be found or reject their settings.
        """
        plan = self.plan
        self.control = control
        problems: list[Problem] = []
        for settings in plan.config.listeners:
            try:
                kind = handler_kind(plan.config, settings)
                plan.certificates.set_alpn(settings.id, kind.alpn)
                starttls = None if settings["tls.implicit"] else plan.tls.get(settings.id)
                given = handler_settings(plan.config, settings, starttls, control)
                handler = make_handler(plan.config, settings, kind, given)
                self.handlers.append((settings, handler))
                self.given[settings.id] = given
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            problems.sort(key=lambda problem: problem.line)
            raise ConfigurationError(problems, plan.config.warnings)
        self.code.remember(plan.config.listeners)

    async def start(self, sockets: Sequence[BoundSocket]) -> None:
        """Start the handlers; afterwards the worker is ready to accept.

        Args:
            sockets: the bound sockets of all listeners of the plan; the worker closes them.

        Raises:
            StoppedError: `stop` was called in the meantime.
            Exception: a handler raised it. `abandon` cleans up.
        """
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()
        self._sockets = sockets
        ports = {bound.listener: bound.port for bound in reversed(sockets) if bound.port}
        for settings, handler in self.handlers:
            # The port of a bind with port 0 is known only now.
            port = handler.settings.port or ports.get(settings.id, 0)
            handler.settings = dataclasses.replace(handler.settings, port=port)
            await self.start_handler(handler)

    async def start_handler(self, handler: Handler) -> None:
        """Start a handler; cancel that if `stop` is called. An application may start slowly.

        Raises:
            StoppedError: `stop` was called.
            Exception: the handler raised it.
        """
        stopped = self._stopping
        assert stopped is not None
        starting = asyncio.ensure_future(handler.start())
        stopping = asyncio.ensure_future(stopped.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
            # It may start all the same, and then somebody has to stop it.
            if not starting.cancelled() and starting.exception() is None:
                self._started[id(handler)] = handler
        if starting.cancelled() and stopped.is_set():
            raise StoppedError("stopped while starting")
        starting.result()

    def has_started(self, handler: Handler) -> bool:
        """Whether a handler was started and has not been stopped."""
        return id(handler) in self._started

    def accept(self, arena: Arena, member: int) -> None:
        """Start accepting connections on sockets that are already listening.

        Args:
            arena: created by the plan; it counts the connections of all workers.
            member: the number of this process in the arena.

        Raises:
            OSError: descriptors or memory ran out. `abandon` cleans up.
        """
        self._engine = engine_for(asyncio.get_running_loop())
        self._engine.share_load(arena, member)
        self._arena, self._member = arena, member
        self.log_connections()
        own: dict[str, list[BoundSocket]] = {settings.id: [] for settings, _ in self.handlers}
        for bound in self._sockets:
            own[bound.listener].append(bound)
        listeners = [
            self._listener(self.plan, settings, handler, own[settings.id])
            for settings, handler in self.handlers
        ]
        self.listeners = tuple(listeners)
        for listener in listeners:
            self._listen(self.plan, listener)

    def log_connections(self) -> None:
        """Log connections as the level of the package's logger says; call it when that changes."""
        if self._engine is not None:
            self._engine.log_connections(logger.isEnabledFor(logging.DEBUG))

    def _listener(
        self,
        plan: Plan,
        settings: ListenerSettings,
        handler: Handler,
        sockets: Sequence[BoundSocket],
    ) -> Listener:
        policy, tls = _policy(settings), _implicit_tls(plan, settings)
        return Listener(settings.id, handler, sockets, policy, tls, self._stop_soon)

    def _listen(self, plan: Plan, listener: Listener) -> None:
        assert self._engine is not None
        assert self._arena is not None
        listener.listen(self._engine, plan.places(self._arena, self._member, listener.name))

    async def run(self) -> None:
        """Serve until `stop` is called."""
        assert self._stopping is not None
        await self._stopping.wait()

    async def shutdown(self) -> None:
        """Drain all listeners, then stop the handlers. Calling it again does nothing.

        Raises:
            Exception: a handler raised it when it was stopped; all others have been stopped.
        """
        if self.ended:
            return
        # The drain of all listeners includes those that are already draining.
        for one in self._drains:
            one.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        timeout = self.plan.config.process["server.shutdown-timeout"]

        def waiting(count: int) -> None:
            text = "draining: %s still open, waiting at most %g s"
            fields = {"count": count, "timeout": timeout}
            what = _connections(count)
            log(logger, logging.INFO, "server-draining", text, what, timeout, **fields)

        listeners = (*self.listeners, *self._leaving)
        cut = await drain(listeners, timeout, at_once=self._at_once, waiting=waiting)
        if cut:
            text = "closed %s that had not finished"
            what = _connections(cut)
            log(logger, logging.WARNING, "connections-cut", text, what, count=cut)
        await asyncio.gather(*self._stops)
        failed = await self.stop_handlers(self._started.values())
        self._close_engine()
        self.ended = True
        if failed is not None:
            raise failed

    async def abandon(self) -> None:
        """Undo a failed start: close the sockets, stop the handlers that were started."""
        for listener in self.listeners:
            listener.drain()
        close_all(self._sockets)
        # Failures are only logged here; the caller raises what made the start fail.
        await self.stop_handlers(self._started.values())
        self._close_engine()

    async def stop_handlers(self, handlers: Iterable[Handler]) -> Exception | None:
        """Stop handlers, the last one first; return the last failure, which has been logged."""
        failed: Exception | None = None
        for handler in reversed(tuple(handlers)):
            self._started.pop(id(handler), None)
            try:
                await handler.stop()
            except Exception as error:
                # Continue: the other handlers may have data to save.
                name = handler.settings.listener
                # As text, so that a log record does not keep the traceback's frames alive.
                why = repr(error)
                logger.error('listener "%s": its handler failed to stop: %s', name, why)
                failed = error
        return failed

    def _close_engine(self) -> None:
        """Close the engine unless other servers on the loop use it."""
        if self._engine is not None and self._engine.idle:
            self._engine.close()

    # -- while it runs

    @property
    def stopping(self) -> bool:
        """True once `stop` has been called."""
        return self._stopping is not None and self._stopping.is_set()

    def stop(self, *, at_once: bool = False) -> None:
        """Let `run` return, or `start` raise; does nothing before `start`.

        Args:
            at_once: let `shutdown` close all connections at once; implied when called again.
        """
        if self._stopping is None or self._at_once is None:
            return
        if self._stopping.is_set() or at_once:
            self._at_once.set()
        self._stopping.set()

    def listener(self, id: str) -> Listener | None:
        """Return the listener with this id, None if there is none."""
        return next((one for one in self.listeners if one.name == id), None)

    def is_drained(self, id: str) -> bool:
        """Whether a listener was drained on request; only a restart opens it again."""
        listener = self.listener(id)
        return listener is not None and listener.state in (State.DRAINING, State.CLOSED)

    def drain_listener(self, listener: Listener) -> None:
        """Start draining one listener, and log when it is closed."""
        if listener.drain():
            self._watch_drain(listener)

    def _watch_drain(self, listener: Listener) -> None:
        task = asyncio.get_running_loop().create_task(self._drain_listener(listener))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def _drain_listener(self, listener: Listener) -> None:
        timeout = self.plan.config.process["server.shutdown-timeout"]
        name = listener.name
        cut = await drain((listener,), timeout)
        if cut:
            text = 'listener "%s": closed %s that had not finished in %g s'
            fields: dict[str, object] = {"listener": name, "count": cut}
            values = (name, _connections(cut), timeout)
            log(logger, logging.WARNING, "connections-cut", text, *values, **fields)
        log(logger, logging.INFO, "listener-closed", 'listener "%s": closed', name, listener=name)
        if listener in self._leaving:
            self._leaving.remove(listener)
            self._stop_soon(listener.handler)
            if self._arena is not None:
                self.plan.settle(self._arena)

    # -- to another plan (reload/transition.py)

    def add(
        self,
        plan: Plan,
        settings: ListenerSettings,
        handler: Handler,
        sockets: Sequence[BoundSocket],
    ) -> Listener:
        """Return a new listener, which accepts."""
        listener = self._listener(plan, settings, handler, sockets)
        self._listen(plan, listener)
        return listener

    def renew(
        self,
        listener: Listener,
        plan: Plan,
        settings: ListenerSettings,
        handler: Handler,
        sockets: Sequence[BoundSocket],
    ) -> None:
        """Let a listener accept with other settings."""
        listener.renew(handler, sockets, _policy(settings), _implicit_tls(plan, settings))

    def remove(self, listener: Listener) -> None:
        """Close a listener's sockets and drain it; its handler is stopped when it is closed."""
        if listener.state is State.CLOSED:  # it was drained on request
            self._stop_soon(listener.handler)
            return
        self._leaving.append(listener)
        if listener.state is not State.DRAINING:
            listener.drain()
            self._watch_drain(listener)

    def adopt(
        self,
        plan: Plan,
        handlers: list[tuple[ListenerSettings, Handler]],
        given: Mapping[str, HandlerSettings],
        listeners: Sequence[Listener],
    ) -> None:
        """Replace plan, handlers and listeners."""
        self.plan, self.handlers, self.listeners = plan, handlers, tuple(listeners)
        kept = {settings.id: self.given.get(settings.id) for settings, _ in handlers}
        self.given = {id: one for id, one in kept.items() if one is not None} | dict(given)

    def _stop_soon(self, handler: Handler) -> None:
        """Stop a handler that no connection uses any more."""
        task = asyncio.get_running_loop().create_task(self._stop_one(handler))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _stop_one(self, handler: Handler) -> None:
        await self.stop_handlers((handler,))


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _policy(settings: ListenerSettings) -> ConnectionPolicy:
    return ConnectionPolicy(
        wait=settings["limit-action"] == "wait",
        linger=settings["socket.linger"] or 0.0,
        first_byte=settings["timeout.first-byte"] or 0.0,
        idle=settings["timeout.idle"] or 0.0,
    )


def _implicit_tls(plan: Plan, settings: ListenerSettings) -> TlsSettings | None:
    return plan.tls[settings.id] if settings["tls.implicit"] else None
