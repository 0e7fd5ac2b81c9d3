"""One worker on its way from one plan to the next.

    Transition(worker, plan, difference) ─> prepare(sockets) ─> commit    the new plan is in use
         new handlers are made                  they start └──> abandon   nothing has changed

Rules of this file: no file is read and no socket opened; that is done by whoever has the privileges
(the server, or a supervisor for all its workers). Until `commit`, which cannot fail, clients notice
nothing. Open connections keep the handler and the settings that they began with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastlisten.config import ListenerSettings
from fastlisten.config.notation import quote
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.handlers.base import Handler, HandlerSettings
from fastlisten.runtime.canned_replies import CannedReplies
from fastlisten.runtime.handler_factory import handler_kind, handler_settings, make_handler
from fastlisten.runtime.handler_problem import handler_problem
from fastlisten.runtime.listener import Listener, State
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all

if TYPE_CHECKING:
    from fastlisten.runtime.plan import Plan
    from fastlisten.runtime.reload.difference import Difference
    from fastlisten.runtime.worker import Worker

__all__ = ["Transition"]


class Transition:
    """One worker on its way to another plan.

    Args:
        worker: serves the former plan and accepts.
        plan: the next one, with rows for all its listeners.
        difference: between the configurations of the two.
    """

    def __init__(self, worker: Worker, plan: Plan, difference: Difference) -> None:
        self._worker = worker
        self._plan = plan
        self._difference = difference
        self._handlers: list[tuple[ListenerSettings, Handler]] = []
        self._given: dict[str, HandlerSettings] = {}  # what new handlers were given
        self._sockets: dict[str, list[BoundSocket]] = {}

    async def prepare(self, sockets: Sequence[BoundSocket]) -> None:
        """Make and start handlers for new listeners, and for those with other settings.

        Args:
            sockets: all sockets of the next plan, listening; those that stay have the same `sock`
                as before.

        Raises:
            ConfigurationError: with all handlers that cannot be found, reject their settings or
                fail to start, or with a socket that is gone; no handler is left behind.
            StoppedError: the worker was asked to stop.
        """
        ports: dict[str, int] = {}
        for bound in sockets:
            self._sockets.setdefault(bound.listener, []).append(bound)
            if bound.port:
                ports.setdefault(bound.listener, bound.port)
        self._make_handlers()
        try:
            for settings, handler in self._handlers:
                if settings.id in self._given:
                    await self._start(settings, handler, ports.get(settings.id, 0))
            self._check_sockets()
        except BaseException:
            await self.abandon()
            raise

    def _make_handlers(self) -> None:
        worker, config = self._worker, self._plan.config
        serving = {settings.id: handler for settings, handler in worker.handlers}
        # A key of the process may concern any listener.
        process = any(
            not change.listeners and change.effect != "restart"
            for change in self._difference.changes
        )
        problems: list[Problem] = []
        for settings in config.listeners:
            former = serving.get(settings.id)
            if former is not None and worker.is_drained(settings.id):
                self._handlers.append((settings, former))
                continue
            tls = self._plan.tls.get(settings.id)
            changed = (
                process
                or settings.id in self._difference.changed
                or tls is not worker.plan.tls.get(settings.id)
            )
            try:
                handler = former
                if handler is None or changed:
                    handler = self._handler(settings, former)
                self._handlers.append((settings, handler))
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            problems.sort(key=lambda problem: problem.line)
            raise ConfigurationError(problems, config.warnings)

    def _handler(self, settings: ListenerSettings, former: Handler | None) -> Handler:
        """Return the handler for a listener: the former one if it would be given the same."""
        worker, plan = self._worker, self._plan
        kind = handler_kind(plan.config, settings)
        plan.certificates.set_alpn(settings.id, kind.alpn)
        starttls = None if settings["tls.implicit"] else plan.tls.get(settings.id)
        given = handler_settings(plan.config, settings, starttls, worker.control)
        if former is not None and type(former) is kind:
            if given == worker.given[settings.id]:
                return former
            given = dataclasses.replace(given, kept=dict(former.settings.kept))
        handler = make_handler(plan.config, settings, kind, given)
        self._given[settings.id] = given
        return handler

    async def _start(self, settings: ListenerSettings, handler: Handler, port: int) -> None:
        # The port of a bind with port 0 is known only from its socket.
        port = handler.settings.port or port
        handler.settings = dataclasses.replace(handler.settings, port=port)
        try:
            await self._worker.start_handler(handler)
            CannedReplies.of(handler)  # `commit` asks for them again, and must not fail
        except Exception as error:
            if self._worker.stopping:
                raise
            # Code of others; its own message tells the administrator most.
            text = f"the handler cannot start: {error or type(error).__name__}"
            problem = handler_problem(self._plan.config, settings, text)
            raise ConfigurationError([problem], self._plan.config.warnings) from error

    def _check_sockets(self) -> None:
        """Check that a socket that changes its listener was not closed while handlers started."""
        config = self._plan.config
        for settings in config.listeners:
            for bound in self._sockets.get(settings.id, ()):
                if bound.sock.fileno() < 0 and not self._worker.is_drained(settings.id):
                    text = "the listener that had this address was drained during the reload"
                    problem = config.problem(settings.path("bind"), text, quote(bound.bind.text))
                    raise ConfigurationError([problem], config.warnings)

    async def abandon(self) -> None:
        """Stop the handlers that were started; the worker goes on as before."""
        made = [handler for settings, handler in self._handlers if settings.id in self._given]
        await self._worker.stop_handlers(filter(self._worker.has_started, made))

    def commit(self) -> None:
        """Use the next plan from now on.

        Listeners that are gone are drained, new ones accept. The others accept with their new
        settings. Sockets that are not needed any more are closed.
        """
        worker = self._worker
        former = {listener.name: listener for listener in worker.listeners}
        owners = {bound.sock: one for one in worker.listeners for bound in one.sockets}
        for name, sockets in self._sockets.items():
            for bound in sockets:
                owner = owners.get(bound.sock)
                if owner is not None and owner.name != name:
                    owner.give_away(bound)
        for name in self._difference.removed:
            worker.remove(former.pop(name))
        listeners: list[Listener] = []
        for settings, handler in self._handlers:
            own = self._sockets.get(settings.id, [])
            listener = former.get(settings.id)
            if listener is None:
                listener = worker.add(self._plan, settings, handler, own)
            elif listener.state not in (State.DRAINING, State.CLOSED):
                worker.renew(listener, self._plan, settings, handler, own)
            else:
                close_all(own)  # drained while handlers were starting
            listeners.append(listener)
        worker.adopt(self._plan, self._handlers, self._given, listeners)
