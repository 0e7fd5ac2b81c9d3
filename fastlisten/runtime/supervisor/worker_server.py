"""The server in a worker process: it starts, accepts when told to, and drains.

    make handlers ─> start them ─> "ready" ─> wait for "accept" ─> accept ─> "serving" ─> ...
                                                                        SIGTERM: "draining" ─┐
    ... ─> "stop", the channel's end, or SIGTERM ─> drain ─> the process ends  <─────────────┘

Rules of this file: it has the methods of `runtime.server.Server` that the program calls. It binds
nothing and forks nothing. The supervisor is trusted; when it is gone, so is the reason to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from fastlisten.config import Config
from fastlisten.log_events import log
from fastlisten.mail.logins.logins import share_logins
from fastlisten.mail.relay.relay import share_sessions
from fastlisten.mail.user_sessions import share_user_sessions, user_sessions
from fastlisten.runtime.listening_lines import listening_lines
from fastlisten.runtime.signal_actions import handle_signals
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.supervisor.channel import (
    ChannelClosedError,
    ChannelError,
    LostMessageError,
    Message,
)
from fastlisten.runtime.supervisor.heartbeat import Heartbeat
from fastlisten.runtime.supervisor.lifecycle_messages import (
    ACCEPT,
    DRAINING,
    READY,
    SERVING,
    STOP,
)
from fastlisten.runtime.supervisor.login_penalties import LOGIN_ANSWER
from fastlisten.runtime.supervisor.reload_messages import ANSWER as RELOAD_ANSWER
from fastlisten.runtime.supervisor.reload_messages import Answer
from fastlisten.runtime.supervisor.remembered_logins import LOGINS_KNOWN
from fastlisten.runtime.supervisor.remote_control import RemoteControl, WorkerControl
from fastlisten.runtime.supervisor.remote_logins import RemoteLogins
from fastlisten.runtime.supervisor.remote_penalties import RemotePenalties
from fastlisten.runtime.supervisor.shared_state import WorkerStart
from fastlisten.runtime.supervisor.worker_reload import WorkerReload
from fastlisten.runtime.supervisor.worker_requests import ANSWER, REQUEST
from fastlisten.runtime.worker import StoppedError, Worker

__all__ = ["WorkerServer"]

logger = logging.getLogger("fastlisten")


class WorkerServer:
    """Serves the listeners of a plan in a process that the supervisor has forked.

    Creating it imports handlers and applications, so privileges must have been dropped.

    Args:
        start: what the supervisor has passed on.

    Attributes:
        started: it accepts.
        reloaded: called with the configuration in use after each reload; may be set.

    Raises:
        ConfigurationError: a handler cannot be found or rejects its settings.
    """

    started: bool
    reloaded: Callable[[Config], object] | None

    def __init__(self, start: WorkerStart) -> None:
        self.started = False
        self._start = start
        self._channel = start.channel
        self._worker = Worker(start.plan, start.number)
        self._member: int | None = None
        self._accept: asyncio.Event | None = None
        self._stopped = False
        self._terminated = 0
        self._heartbeat: Heartbeat | None = None
        self._changes: dict[str, Any] = {}
        self._control = WorkerControl(self._channel.send, self._worker)
        self._remote = RemoteControl(self._channel.send, self._control.local)
        self._penalties = RemotePenalties(self._channel.send, start.login_key)
        self._logins = RemoteLogins(self._channel.send, start.login_key)
        self.reloaded = None
        self._reload = WorkerReload(self._worker, self._answer_reload, self._applied)
        self._worker.make_handlers(self._remote)

    # -- the three steps

    async def startup(self) -> None:
        """Start the handlers, then accept as soon as the supervisor says so.

        Raises:
            StoppedError: it was told to stop in the meantime, or the supervisor is gone.
            Exception: a handler raised it.
        """
        self._accept = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._take_messages)
        worker = self._worker
        try:
            await worker.start(self._start.sockets)
            if self._stopped:
                raise StoppedError("stopped while starting")
            self._send(READY)
            await self._accept.wait()
            if self._stopped:
                raise StoppedError("stopped while starting")
            self._member = self._start.arena.join()
            start, arena = self._start, self._start.arena
            places = arena.places(start.relay_row, self._member)
            share_user_sessions(start.user_sessions)
            share_sessions(places, user_sessions())
            slots = arena.places(start.login_row, self._member)
            share_logins(self._penalties, self._logins.cache, slots, start.workers)
            self._logins.begin()
            self._heartbeat = Heartbeat(self._start.arena, self._member)
            worker.accept(self._start.arena, self._member)
            self._control.apply(self._changes)
            self.started = True
            self._send(SERVING, {"lines": list(listening_lines(worker))})
        except BaseException:
            await worker.abandon()
            self._leave()
            raise

    async def main_loop(self) -> None:
        """Serve until `stop` is called."""
        await self._worker.run()

    async def shutdown(self) -> None:
        """Drain. Calling it again does nothing."""
        if self._worker.ended:
            return
        try:
            await self._reload.close()
            await self._worker.shutdown()
            await self._control.report()
        finally:
            # Even if a handler raised an exception: everything else has been shut down.
            self._leave()

    def _leave(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        close_all(self._start.sockets)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        share_sessions(None)
        share_logins(None)
        if self._member is not None:
            member, self._member = self._member, None
            self._start.arena.heal(member)

    # -- the supervisor's messages

    def _send(self, kind: str, body: Mapping[str, Any] | None = None) -> None:
        # A supervisor that is gone is noticed by reading.
        with contextlib.suppress(ChannelError):
            self._channel.send(kind, body or {})

    def _take_messages(self) -> None:
        try:
            while True:
                try:
                    message = self._channel.receive()
                except LostMessageError as error:
                    self._reload.lost(str(error))
                    continue
                if message is None:
                    return
                if self._reload.receive(message):
                    continue
                message.close()
                self._take_message(message)
        except ChannelClosedError:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            log(logger, logging.ERROR, "supervisor-gone", "the supervisor has ended: draining")
            self.stop()

    def _take_message(self, message: Message) -> None:
        if message.kind == ACCEPT:
            assert self._accept is not None
            self._changes = message.body["changes"]
            self._accept.set()
        elif message.kind == REQUEST:
            self._control.receive(message.body)
        elif message.kind == ANSWER:
            self._remote.receive(message.body)
        elif message.kind == LOGIN_ANSWER:
            self._penalties.receive(message.body)
        elif message.kind == LOGINS_KNOWN:
            self._logins.receive(message.body)
        elif message.kind == STOP:
            at_once = bool(message.body["at_once"])
            if at_once or not self._stopped:
                self.stop(at_once=at_once)

    def _answer_reload(self, answer: Answer) -> None:
        self._send(RELOAD_ANSWER, answer.encode())

    def _applied(self, config: Config) -> None:
        if self.reloaded is not None:
            self.reloaded(config)

    # -- while it runs

    def stop(self, *, at_once: bool = False) -> None:
        """Let `main_loop` return. With `at_once`, or if called again, `shutdown` does not wait."""
        self._stopped = True
        self._worker.stop(at_once=at_once)
        if self._accept is not None:
            self._accept.set()

    def receive(self, number: signal.Signals) -> None:
        """Drain for SIGTERM, and let the supervisor start a successor; ignore other signals.

        SIGINT comes from a terminal, which sends it to the supervisor, too.
        """
        name = number.name
        if number == signal.SIGTERM:
            self._terminated += 1
            again = self._terminated > 1
            said = "closing at once" if again else "draining"
            log(logger, logging.INFO, "signal-received", "%s: %s", name, said, signal=name)
            self._send(DRAINING)
            # The first one may have been sent to all processes of the server, and be the same
            # request as the supervisor's.
            if again or not self._stopped:
                self.stop(at_once=again)
        elif number != signal.SIGINT:
            text = "%s: ignored; send it to the supervisor"
            log(logger, logging.INFO, "signal-received", text, name, signal=name)

    def signals(self) -> AbstractContextManager[None]:
        """Handle signals as `receive` says while the block runs."""
        return handle_signals(self.receive)

    def announcements(self) -> list[tuple[str, str, dict[str, object]]]:
        """Return what this process prints: nothing, because the supervisor prints it."""
        return []
