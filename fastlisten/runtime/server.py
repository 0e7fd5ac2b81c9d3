"""The server: a configuration's listeners in one process, from start to drained.

Three methods in the order in which they run: `startup`, `main_loop`, `shutdown`. Rules of this
file: it decides when, the listeners how; it neither parses arguments nor sets up logging.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import resource
import signal
from collections.abc import Iterable, Iterator, Sequence

from fastlisten._arena import Arena
from fastlisten._core import Engine
from fastlisten._tls import TlsSettings
from fastlisten.config import Config, ListenerSettings
from fastlisten.errors import ConfigurationError, FastlistenError, Problem
from fastlisten.handlers.base import Handler
from fastlisten.log_events import log
from fastlisten.loop.engines import engine_for
from fastlisten.runtime.control import DRAIN_PAUSE, STOOD_STILL, Control
from fastlisten.runtime.file_permissions import permission_warnings
from fastlisten.runtime.handler_factory import handler_kind, make_handler
from fastlisten.runtime.listener import ConnectionPolicy, Listener
from fastlisten.runtime.sockets.opening import BoundSocket, close_all, listen_all, open_all
from fastlisten.runtime.tls.certificates import Certificates

__all__ = ["Server", "StoppedError"]

logger = logging.getLogger("fastlisten")


class StoppedError(FastlistenError):
    """The server was asked to stop before it had started."""


class Server:
    """Serves a configuration on the running loop.

    Use `serve` for all of it, or `startup`, `main_loop` and `shutdown` one after the other, or
    ``async with Server(config) as server`` in a program that has its own main loop.

    Certificates are read when it is made, and the self-signed one is made then where it is needed.

    Args:
        config: loaded; every listener must be one that this version can serve.

    Attributes:
        config: as given.
        listeners: in order of id, from `startup` on.
        certificates: the contexts of the listeners that have TLS.
        notes: what the administrator should know about certificates and sockets, a sentence each.
        started: `startup` has succeeded.
        control: what may be asked of it while it runs, and done to it.
        reload_succeeded: false if something read at the last reload could not be used.

    Raises:
        ConfigurationError: something in it is not available in this version, a handler cannot be
            found, a certificate cannot be used.
    """

    def __init__(self, config: Config) -> None:
        problems = list(config.unavailable())
        if problems:
            raise ConfigurationError(problems, config.warnings)
        self.config = config
        self.listeners: tuple[Listener, ...] = ()
        self.notes: list[str] = []
        self.started = False
        self.control = Control(self)
        self.reload_succeeded = True
        self._handlers: list[tuple[ListenerSettings, Handler]] = []
        self._tls: dict[str, TlsSettings] = {}
        self.certificates = self._make(problems)
        self.notes += self.certificates.notes
        self._exposed = permission_warnings(config)
        self.notes += self._exposed
        self._arena: Arena | None = None
        self._member = 0
        self._engine: Engine | None = None
        self._stopping: asyncio.Event | None = None
        self._at_once: asyncio.Event | None = None
        self._ended = False

    def _make(self, problems: list[Problem]) -> Certificates:
        """Make handlers and contexts; return the latter, or raise with all that is wrong."""
        config = self.config
        kinds: dict[str, type[Handler]] = {}
        for settings in config.listeners:
            try:
                kinds[settings.id] = handler_kind(config, settings)
            except ConfigurationError as error:
                problems += error.problems
        try:
            certificates = Certificates(config, {id: kind.alpn for id, kind in kinds.items()})
        except ConfigurationError as error:
            found = _in_order((*problems, *error.problems))
            raise ConfigurationError(found, config.warnings) from None
        for settings in config.listeners:
            if settings.id not in kinds:
                continue
            context = certificates.context(settings.id)
            if context is not None:
                self._tls[settings.id] = TlsSettings(
                    context, handshake_timeout=settings["tls.timeout"]
                )
            starttls = None if settings["tls.implicit"] else self._tls.get(settings.id)
            try:
                handler = make_handler(config, settings, kinds[settings.id], starttls, self.control)
                self._handlers.append((settings, handler))
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(_in_order(problems), config.warnings)
        return certificates

    # -- the three steps

    async def startup(self) -> None:
        """Bind everything, listen on everything, then accept.

        Raises:
            StartError: with all failures; nothing is open then.
            StoppedError: `stop` was called meanwhile; nothing is open then either.
        """
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()
        sockets = open_all(self.config.listeners, self.notes)
        started: list[Handler] = []
        try:
            ports = {bound.listener: bound.port for bound in reversed(sockets) if bound.port}
            for settings, handler in self._handlers:
                # A bind with port 0 has its port only now.
                port = handler.settings.port or ports.get(settings.id, 0)
                handler.settings = dataclasses.replace(handler.settings, port=port)
                await self._start(handler)
                started.append(handler)
            listen_all(sockets)
            self._open_listeners(sockets)
            self.started = True
            for note in self.notes:
                log(logger, logging.WARNING, "configuration-warning", "%s", note, error=note)
        except BaseException:
            for listener in self.listeners:
                listener.drain()
            close_all(sockets)
            for handler in reversed(started):
                await handler.stop()
            self._let_go()
            raise

    async def _start(self, handler: Handler) -> None:
        """Start a handler, which may take as long as the application that it serves; or stop."""
        assert self._stopping is not None
        starting = asyncio.ensure_future(handler.start())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
        if starting.cancelled() and self._stopping.is_set():
            raise StoppedError("stopped while it started")
        starting.result()

    def _open_listeners(self, sockets: Sequence[BoundSocket]) -> None:
        engine = self._engine = engine_for(asyncio.get_running_loop())
        engine.log_connections(logger.isEnabledFor(logging.DEBUG))
        arena = self._arena = Arena(max(1, len(self._handlers)), 1)
        self._member = arena.join()
        own: dict[str, list[BoundSocket]] = {settings.id: [] for settings, _ in self._handlers}
        for bound in sockets:
            own[bound.listener].append(bound)
        self.listeners = tuple(
            Listener(
                settings.id,
                handler,
                own[settings.id],
                _limits(settings),
                self._tls[settings.id] if settings["tls.implicit"] else None,
            )
            for settings, handler in self._handlers
        )
        for row, ((settings, _), listener) in enumerate(
            zip(self._handlers, self.listeners, strict=True)
        ):
            places = arena.places(row, self._member)
            places.limit = settings["max-connections"]
            listener.listen(engine, places)

    async def main_loop(self) -> None:
        """Serve until `stop` is called."""
        assert self._stopping is not None
        await self._stopping.wait()

    async def shutdown(self) -> None:
        """Drain: stop accepting, say farewell, wait for transactions, then close what is left.

        A server ends once; calling it again does nothing.
        """
        assert self._at_once is not None
        if self._ended:
            return
        await self.control.close()
        timeout = self.config.process["server.shutdown-timeout"]
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        left = sum(listener.drain() for listener in self.listeners)
        if left:
            # What was idle is closed in the loop's next round; the rest is worth a line.
            await asyncio.sleep(0)
            left = sum(listener.drain() for listener in self.listeners)
        if left:
            log(
                logger,
                logging.INFO,
                "server-draining",
                "draining: %s still open, at most %g s",
                _connections(left),
                timeout,
                count=left,
                timeout=timeout,
            )
        while left and loop.time() < ends and not self._at_once.is_set():
            began = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), DRAIN_PAUSE)
            late = loop.time() - began - DRAIN_PAUSE
            if late > STOOD_STILL:
                ends += late
            left = sum(listener.drain() for listener in self.listeners)
        if left:
            aborted = sum(listener.abort() for listener in self.listeners)
            text = "closed %s that had not finished"
            what = _connections(aborted)
            log(logger, logging.WARNING, "connections-cut", text, what, count=aborted)
        for listener in self.listeners:
            await listener.closed()
        failed: Exception | None = None
        for settings, handler in reversed(self._handlers):
            try:
                await handler.stop()
            except Exception as error:
                # The other handlers still have data to bring home.
                logger.error('listener "%s": its handler did not stop: %r', settings.id, error)
                failed = error
        self._let_go()
        self._ended = True
        if failed is not None:
            raise failed
        if self.started:
            log(logger, logging.INFO, "server-stopped", "stopped")

    def _let_go(self) -> None:
        """Close the engine, unless other servers of the loop use it, and leave the arena."""
        if self._engine is not None and self._engine.idle:
            self._engine.close()
        if self._arena is not None:
            self._arena.heal(self._member)

    # -- around them

    async def serve(self) -> None:
        """Start, serve until `stop` or SIGTERM or SIGINT, drain.

        The first signal drains; a second one closes at once.

        Raises:
            StartError: with all failures; nothing is open then.
        """
        with self.signals(), contextlib.suppress(StoppedError):
            await self.startup()
            try:
                await self.main_loop()
            finally:
                await self.shutdown()

    def stop(self, *, at_once: bool = False) -> None:
        """Let `main_loop` return; with `at_once`, or when called again, let `shutdown` not wait."""
        if self._stopping is None or self._at_once is None:
            return
        if self._stopping.is_set() or at_once:
            self._at_once.set()
        self._stopping.set()

    def reload(self) -> None:
        """Read certificates and client authorities again, and log what came of it."""
        found = self.certificates.reload()
        self.reload_succeeded = not found.problems
        for problem in found.problems:
            text = "%s; what was in use before stays in use"
            log(logger, logging.ERROR, "certificate-error", text, problem, **problem.fields)
        for line in found.changed:
            log(logger, logging.INFO, "certificate-changed", "%s", line)
        for line in found.warnings:
            log(logger, logging.WARNING, "certificate-warning", "%s", line, error=line)
        before, self._exposed = self._exposed, permission_warnings(self.config)
        for line in self._exposed:
            if line not in before:  # a renewed key, say, that has another mode
                logger.warning("%s", line)
        if not (found.changed or found.problems):
            files = "1 file" if found.files == 1 else f"{found.files} files"
            logger.info("nothing has changed in %s of certificates", files)

    def receive(self, number: signal.Signals) -> None:
        """Do what a signal asks for: SIGTERM and SIGINT `stop`, SIGHUP `reload`; log the others."""
        if number in (signal.SIGTERM, signal.SIGINT):
            again = self._stopping is not None and self._stopping.is_set()
            what = "closing at once" if again else "draining" if self.started else "stopping"
            self._log_signal(number, what)
            self.stop()
        elif number == signal.SIGHUP:
            what = "reading certificates again; other changes of the configuration need a restart"
            self._log_signal(number, what)
            self.reload()
        else:
            self._log_signal(number, "ignored")

    def _log_signal(self, number: signal.Signals, what: str) -> None:
        name = number.name
        log(logger, logging.INFO, "signal-received", "%s: %s", name, what, signal=name)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT call `stop`, and SIGHUP `reload`, while the block runs."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            loop.add_signal_handler(number, self.receive, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                # The loop puts Python's default there, not what it found. None: not Python's.
                if handler is not None:
                    signal.signal(number, handler)

    async def __aenter__(self) -> Server:
        await self.startup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()
        await self.shutdown()

    def describe(self) -> list[str]:
        """Return what is served: a line per listener, and one for each thing to know about it."""
        return [line for line, _, _ in self.announcements()]

    def announcements(self) -> list[tuple[str, str, dict[str, object]]]:
        """Return the same lines, each with its event and fields as in `log_events`."""
        lines: list[tuple[str, str, dict[str, object]]] = []
        notes: dict[str, list[str]] = {}  # with the listeners that each is about
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for (settings, handler), listener in zip(self._handlers, self.listeners, strict=True):
            addresses = [bound.address for bound in listener.sockets]
            limit, action = settings["max-connections"], settings["limit-action"]
            line = (
                f'listener "{settings.id}": {settings.protocol} on '
                f"{', '.join(addresses) or 'nothing'}; "
                f"max-connections {limit}, then {action}"
            )
            needed = limit + len(listener.sockets)
            if most != resource.RLIM_INFINITY and needed > most:
                line += f"; needs up to {needed} descriptors, this process may have {most}"
            fields: dict[str, object] = {
                "listener": settings.id,
                "protocol": settings.protocol,
                "addresses": addresses,
                "limit": limit,
            }
            lines.append((line, "listening", fields))
            for note in handler.notes():
                notes.setdefault(note, []).append(settings.id)
        for note, ids in notes.items():
            names = ", ".join(f'"{id}"' for id in ids)
            line = f"listener{'' if len(ids) == 1 else 's'} {names}: {note}"
            lines.append((line, "listener-note", {"listener": ", ".join(ids)}))
        return lines

    @property
    def accepting(self) -> bool:
        """True while every listener accepts, or would if it had a place."""
        return bool(self.listeners) and all(listener.accepting for listener in self.listeners)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.line)


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _limits(settings: ListenerSettings) -> ConnectionPolicy:
    linger = settings["socket.linger"]
    return ConnectionPolicy(
        wait=settings["limit-action"] == "wait",
        linger=linger if linger else 0.0,
        first_byte=settings["timeout.first-byte"] or 0.0,
        idle=settings["timeout.idle"] or 0.0,
    )
