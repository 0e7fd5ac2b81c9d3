"""What processes say and how they end, and what follows from it.

    "ready" ──> listen, "accept" ──> "serving" ──> the server is started, or an old one drains
    "draining" ──> a successor          waitpid(2) ──> healed, forgotten, replaced

Rules of this file: messages are checked here, or by the part that they are for; a process that
sends anything else is killed. A process that has ended is heard to the end before it is forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from fastlisten.runtime.sockets.opening import listen_all
from fastlisten.runtime.supervisor.channel import (
    BadMessageError,
    ChannelClosedError,
    ChannelError,
    LostMessageError,
    Message,
)
from fastlisten.runtime.supervisor.control_messages import Line, lines_in
from fastlisten.runtime.supervisor.lifecycle_messages import ACCEPT, DRAINING, READY, SERVING
from fastlisten.runtime.supervisor.reloads import Reloads
from fastlisten.runtime.supervisor.restarting import Restarting
from fastlisten.runtime.supervisor.shared_logins import SharedLogins
from fastlisten.runtime.supervisor.shared_state import SharedState
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.worker_process import State, WorkerProcess
from fastlisten.runtime.supervisor.workers import Workers

__all__ = ["WorkerEvents"]

#: Messages of one worker that are taken before the others get their turn: more than fit into a
#: channel, so that a worker that has ended is heard to the end.
_AT_A_TIME = 1000

#: Seconds after which the others get their turn: one that has been taken over could send messages
#: that take long to read.
_LONGEST_TURN = 0.1

#: Seconds for what a process that has ended has said last. It is its counters, mostly; with 10,000
#: listeners they take a third of a second.
_LAST_TURN = 2.0


class WorkerEvents:
    """Takes the messages and the ends of all processes.

    Args:
        shared: its sockets listen as soon as the first worker is ready.
        workers: whose processes they are.
        control: takes messages, and is told which processes there are.
        logins: likewise.
        reloads: likewise.
        restarting: ends if a successor cannot start.
        first_serves: called with lines about what is served when the first worker serves.
    """

    def __init__(
        self,
        shared: SharedState,
        workers: Workers,
        control: SupervisorControl,
        logins: SharedLogins,
        reloads: Reloads,
        restarting: Restarting,
        first_serves: Callable[[Sequence[Line]], None],
    ) -> None:
        self._shared = shared
        self._workers = workers
        self._control = control
        self._logins = logins
        self._reloads = reloads
        self._restarting = restarting
        self._first_serves = first_serves

    # -- the end of a process

    def reap(self) -> None:
        """Wait for all processes that have ended."""
        for process, ended in self._workers.take_ended():
            # What it has said last; its channel is closed on its side.
            if process.polled:
                self.take_messages(process, _LAST_TURN)
            self._remove(process)
            process.channel.close()
            if self._workers.is_successor(process):
                self._restarting.end(succeeded=False)
            self._workers.ended(process, ended)

    def _remove(self, process: WorkerProcess) -> None:
        """Expect nothing more of a process that has ended."""
        self._control.remove(process.key)
        self._logins.remove(process.key)
        self._reloads.remove(process.key)

    # -- messages

    def take_messages(self, process: WorkerProcess, seconds: float = _LONGEST_TURN) -> None:
        """Take what a process has sent, and leave the rest for the next time after some seconds."""
        ends = time.monotonic() + seconds
        try:
            for _ in range(_AT_A_TIME):
                try:
                    message = process.channel.receive()
                except LostMessageError as error:
                    # It asks again, or the supervisor does.
                    text = "worker %d (pid %d): %s"
                    process.log(logging.ERROR, "internal-error", text, error)
                    continue
                if message is None:
                    break
                message.close()
                self._take_message(process, message)
                if time.monotonic() >= ends:
                    break
        except ChannelClosedError:
            # Its end is reported by SIGCHLD.
            process.polled = False
            self._remove(process)
        except BadMessageError as error:
            text = "worker %d (pid %d) has sent a message that no worker sends: %s; killed"
            process.log(logging.ERROR, "worker-killed", text, error, error=str(error))
            process.kill()

    def _take_message(self, process: WorkerProcess, message: Message) -> None:
        """Do what a message asks for.

        Raises:
            BadMessageError: no worker would send that now.
        """
        kind, state = message.kind, process.state
        for part in (self._control, self._logins, self._reloads):
            if part.receive(process.key, kind, message.body):
                return
        if kind == READY and state is State.STARTING:
            process.state = State.READY
            self._ready(process)
        elif kind == SERVING and state is State.READY:
            process.state = State.SERVING
            process.began = time.monotonic()
            self._serves(process, lines_in(message.body.get("lines")))
        elif kind == DRAINING and state is not State.DRAINING:
            # Somebody has told it to stop.
            self._workers.drains(process)
            self._reloads.remove(process.key)
        elif state is not State.DRAINING:
            raise BadMessageError(f"{kind!r} while it is {state.value}")

    def _ready(self, process: WorkerProcess) -> None:
        if self._workers.started:
            try:
                self._shared.open_queues(process.number)
            except OSError as error:
                # Its share of the clients goes to the other workers.
                text = "worker %d (pid %d): an accept queue of its own cannot listen: %s"
                process.log(logging.ERROR, "start-failed", text, error, error=str(error))
        else:
            listen_all(self._shared.sockets)
        changes = self._control.changes()
        self._control.add(process.key, process.number)
        # If it does not read its first message, it has ended or will be seen to hang.
        with contextlib.suppress(ChannelError):
            process.channel.send(ACCEPT, {"changes": changes})

    def _serves(self, process: WorkerProcess, lines: Sequence[Line]) -> None:
        process.log(logging.INFO, "worker-started", "worker %d (pid %d) serves")
        if not self._workers.started:
            self._workers.started = True
            self._first_serves(lines)
            self._workers.start_missing()
        elif self._workers.is_successor(process):
            old = self._workers.take_turn(process)
            if old is not None:
                self._workers.drain(old)
