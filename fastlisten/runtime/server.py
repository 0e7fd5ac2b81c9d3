"""The server: a plan and one worker in this process.

Three methods, in the order in which they run: `startup`, `main_loop`, `shutdown`. Rules of this
file: it creates what workers share and passes it to the worker. It neither parses arguments nor
sets up logging.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from fastlisten._arena import Arena
from fastlisten.config import Config
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.log_events import log, log_fault
from fastlisten.runtime.control import Control
from fastlisten.runtime.control_socket.opening import open_control_socket
from fastlisten.runtime.control_socket.protocol import ServedProcess
from fastlisten.runtime.control_socket.server import ControlSocketServer
from fastlisten.runtime.control_socket.socket_file import ListeningFile
from fastlisten.runtime.handler_factory import handler_kind
from fastlisten.runtime.listener import Listener
from fastlisten.runtime.listening_lines import listening_lines
from fastlisten.runtime.local_control import LocalControl
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.reloading import reload_worker
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.service_manager import ServiceManager, Watchdog
from fastlisten.runtime.signal_actions import act_on_signal, handle_signals
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all
from fastlisten.runtime.tls.certificates import Certificates
from fastlisten.runtime.tls.expiry_check import ExpiryCheck
from fastlisten.runtime.worker import StoppedError, Worker

__all__ = ["Server"]

logger = logging.getLogger("fastlisten")


class Server:
    """Serves a configuration on the running loop.

    Use `serve` for everything; or `startup`, `main_loop` and `shutdown`, in this order; or ``async
    with Server(config) as server`` in a program that has its own main loop.

    Creating it reads the certificates, and creates the self-signed one if a listener needs it.

    Args:
        config: a loaded configuration; every listener must be one that this version can serve.
        control_socket: the path of the control socket if none is configured; empty for none.
        manager: the service manager to notify, None for none.

    Attributes:
        config: as given.
        started: `startup` has succeeded.
        reloaded: called with the configuration in use after each successful reload; may be set.
        control: monitors and controls the server while it runs.

    Raises:
        ConfigurationError: something is not available in this version, a handler cannot be found,
            or a certificate cannot be used.
        PrivilegesError: this process cannot serve as the user in `server.run-as.user`.
    """

    config: Config
    started: bool
    reloaded: Callable[[Config], object] | None
    control: Control

    def __init__(
        self, config: Config, *, control_socket: str = "", manager: ServiceManager | None = None
    ) -> None:
        self.config = config
        self.started = False
        if config.workers > 1:
            shown = str(config.workers)
            message = "only the program (fastlisten serve) has several workers"
            problem = config.problem(("server", "workers"), message, shown, "1 for a Server")
            raise ConfigurationError([problem], config.warnings)
        self._manager = manager or ServiceManager({})
        self._watchdog: Watchdog | None = None
        self._control_path = config.process["server.control-socket"] or control_socket
        self._control_file: ListeningFile | None = None
        self._control_server: ControlSocketServer | None = None
        # The working directory may change.
        self._config_path = os.path.realpath(config.file) if config.file else ""
        self.reloaded = None
        try:
            plan = Plan(config)
        except ConfigurationError as error:
            raise _with_missing_handlers(config, error) from None
        self._worker = Worker(plan)
        self.control = LocalControl(self._worker)
        if self._worker.plan.identity is None:
            self._worker.make_handlers(self.control)
        self._arena: Arena | None = None
        self._member = 0
        self._expiry_check: ExpiryCheck | None = None
        self._reloads: set[asyncio.Task[ReloadReport]] = set()
        self._waiting: asyncio.Task[ReloadReport] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._hung_up = False

    # -- the three steps

    async def startup(self) -> None:
        """Bind everything, listen on everything, then accept.

        With `server.run-as` the process changes its user once everything is bound. Only then are
        the modules of handlers and applications imported.

        Raises:
            StartError: with all failures; all sockets are closed.
            PrivilegesError: the process could not change its user.
            ConfigurationError: a handler cannot be found or rejects its settings, with
                `server.run-as`.
            StoppedError: `stop` was called in the meantime; all sockets are closed.
        """
        worker = self._worker
        self._control_file = self._open_control_socket()
        try:
            sockets = self._worker.plan.bind()
            self._become_user(sockets)
            await worker.start(sockets)
            listen_all(sockets)
            self._arena = self._worker.plan.make_arena()
            self._member = self._arena.join()
            worker.accept(self._arena, self._member)
            self.started = True
            self._expiry_check = ExpiryCheck(lambda: worker.plan.certificates)
            if self._control_file is not None:
                served = ServedProcess(
                    self.control, self._reload_for, os.getpid(), self._config_path
                )
                self._control_server = ControlSocketServer(self._control_file, served)
            for note in self.notes:
                log(logger, logging.WARNING, "configuration-warning", "%s", note, error=note)
            self._manager.ready(self._serving())
            self._watchdog = Watchdog(self._manager)
            if self._hung_up:
                self.reload()
        except BaseException:
            await worker.abandon()
            if self._expiry_check is not None:
                self._expiry_check.stop()
            await self._close_control_socket()
            self._leave_arena()
            raise

    async def main_loop(self) -> None:
        """Serve until `stop` is called."""
        await self._worker.run()

    async def shutdown(self) -> None:
        """Drain: stop accepting, send farewells, wait for transactions, then close what is left.

        Calling it again does nothing.
        """
        if self._worker.ended:
            return
        if self._expiry_check is not None:
            self._expiry_check.stop()
        for one in self._reloads:
            one.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        if self.started:
            self._manager.stopping("draining")
        try:
            await self._worker.shutdown()
        finally:
            # Even if a handler raised an exception: everything else has been shut down.
            await self._close_control_socket()
            self._leave_arena()
            if self._watchdog is not None:
                self._watchdog.stop()
        if self.started:
            log(logger, logging.INFO, "server-stopped", "stopped")

    def _leave_arena(self) -> None:
        if self._arena is not None:
            self._arena.heal(self._member)

    def _become_user(self, sockets: Sequence[BoundSocket]) -> None:
        """Change the user, if one is configured, and only then make the handlers."""
        if self._worker.plan.identity is None:
            return
        try:
            self._worker.plan.identity.drop()
            self._worker.make_handlers(self.control)
        except BaseException:
            close_all(sockets)
            raise

    # -- the control socket

    def _open_control_socket(self) -> ListeningFile | None:
        identity = self._worker.plan.identity
        owner = None if identity is None else (identity.uid, identity.gid)
        return open_control_socket(self.config, self._control_path, owner)

    async def _close_control_socket(self) -> None:
        if self._control_server is not None:
            await self._control_server.close()
        elif self._control_file is not None:
            self._control_file.close()

    async def _reload_for(self, by: str) -> Mapping[str, object]:
        """Reload for a client of the control socket; return the answer."""
        log(logger, logging.INFO, "reload-requested", "reload requested by %s", by, by=by)
        if not self._worker.stopping:
            task = self.reload()
            await asyncio.wait((task,))
            if not task.cancelled() and task.exception() is None:
                return task.result().plain()
        text = "the server is stopping"
        return ReloadReport(applied=False, file=self.config.file, problems=(text,)).plain()

    # -- around them

    async def serve(self) -> None:
        """Start, serve until `stop` or SIGTERM or SIGINT, then drain.

        The first signal drains; a second one closes all connections at once.

        Raises:
            StartError: with all failures; all sockets are closed.
        """
        with self.signals(), contextlib.suppress(StoppedError):
            await self.startup()
            try:
                await self.main_loop()
            finally:
                await self.shutdown()

    async def __aenter__(self) -> Server:
        await self.startup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()
        await self.shutdown()

    # -- while it runs

    def stop(self, *, at_once: bool = False) -> None:
        """Let `main_loop` return. With `at_once`, or if called again, `shutdown` does not wait."""
        self._worker.stop(at_once=at_once)

    def reload(self, config: Config | None = None) -> asyncio.Task[ReloadReport]:
        """Begin to reload the configuration: only what has changed is opened, closed or made anew.

        Open connections go on with the settings that they began with. If the configuration cannot
        be used, or an address cannot be bound, nothing changes.

        Certificates and client CAs are read again too. Reloads run one after another; one that
        has not begun yet is returned instead of another one that would read the same file.

        Args:
            config: the new configuration; None: the file of the present one, which is read again
                (without a file, only certificates are).

        Returns:
            A task, which need not be awaited: everything is logged.

        Raises:
            RuntimeError: the server is not running.
        """
        if not self.started or self._worker.stopping:
            raise RuntimeError("the server is not running")
        if config is None and self._waiting is not None:
            return self._waiting
        task = asyncio.get_running_loop().create_task(self._reload(config))
        self._reloads.add(task)
        task.add_done_callback(self._reload_ended)
        if config is None:
            self._waiting = task
        return task

    async def _reload(self, config: Config | None) -> ReloadReport:
        async with self._one_at_a_time:
            if self._waiting is asyncio.current_task():
                self._waiting = None
            assert self._arena is not None
            self._manager.reloading()
            try:
                return await reload_worker(self._worker, self._arena, config, self._applied)
            finally:
                if not self.stopping:
                    failed = "" if self.reload_succeeded else "; the last reload failed"
                    self._manager.ready(self._serving() + failed)

    def _applied(self, config: Config) -> None:
        self.config = config
        if self.reloaded is not None:
            try:
                self.reloaded(config)
            except Exception as error:
                # Code of others; the configuration is in use all the same.
                log_fault(logger, "internal-error", "after a reload: %r", error)

    def _reload_ended(self, task: asyncio.Task[ReloadReport]) -> None:
        self._reloads.discard(task)
        if self._waiting is task:
            self._waiting = None
        if not task.cancelled():
            task.exception()  # StoppedError, which needs no words

    def _serving(self) -> str:
        count = len(self.listeners)
        return f"serving {count:,} {'listener' if count == 1 else 'listeners'}"

    def receive(self, number: signal.Signals) -> None:
        """Do what a signal asks for: SIGTERM and SIGINT `stop`, SIGHUP `reload`; log the others."""
        if number == signal.SIGHUP and not self.started:
            self._hung_up = True
        act_on_signal(self, number)

    def signals(self) -> AbstractContextManager[None]:
        """Let SIGTERM and SIGINT call `stop`, and SIGHUP `reload`, while the block runs."""
        return handle_signals(self.receive)

    # -- properties

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """All listeners in order of id; empty before `startup`."""
        return self._worker.listeners

    @property
    def certificates(self) -> Certificates:
        """The TLS contexts of the listeners."""
        return self._worker.plan.certificates

    @property
    def notes(self) -> list[str]:
        """What the administrator should know about certificates and sockets, a sentence each."""
        return self._worker.plan.notes

    @property
    def reload_succeeded(self) -> bool:
        """False if the last reload read something that could not be used; true before the first."""
        return self._worker.plan.reload_succeeded

    @property
    def stopping(self) -> bool:
        """True once `stop` has been called while the server was starting or running."""
        return self._worker.stopping

    @property
    def accepting(self) -> bool:
        """True while every listener accepts, or would if its limit were not reached."""
        return bool(self.listeners) and all(listener.accepting for listener in self.listeners)

    def describe(self) -> list[str]:
        """Return lines that say what is served: one per listener, and their handlers' notes."""
        return [line for line, _, _ in self.announcements()]

    def announcements(self) -> list[tuple[str, str, dict[str, object]]]:
        """Return the same lines, each with its event and fields (log_events.py)."""
        return list(listening_lines(self._worker))


def _with_missing_handlers(config: Config, error: ConfigurationError) -> ConfigurationError:
    """Return an error with the plan's mistakes and the handlers that cannot be found."""
    problems: list[Problem] = list(error.problems)
    # Not as root, if another user was to import them.
    if config.process["server.run-as.user"] is None and not find_unavailable(config):
        for settings in config.listeners:
            try:
                handler_kind(config, settings)
            except ConfigurationError as missing:
                problems += missing.problems
    problems.sort(key=lambda problem: problem.line)
    return ConfigurationError(problems, error.warnings)
