"""The supervisor: starts the workers, replaces those that end, and serves nobody itself.

    start ──> first worker ready ──> listen ──> all workers ──> ... ──> stop ──> all have ended
                 │ it fails                        │ one ends: healed, replaced
                 └─> its exit code                 └ (exit 2 or 3: not again)

It holds the sockets and the arena, so a client that connects while a worker is replaced waits in
the socket's queue, and the places of a dead one are given back after waitpid(2).

Rules of this file: one thread, one poll(2), no event loop; it never waits for a worker. Nothing of
others is imported here: it may be root. What workers send is checked: they have fewer privileges.
What is remembered here must survive an upgrade: see `_state` and `_take_over`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fastlisten._arena import Arena
from fastlisten.config import Config
from fastlisten.log_events import log
from fastlisten.mail.relay.relay import SESSIONS
from fastlisten.runtime.control_socket.opening import open_control_socket
from fastlisten.runtime.control_socket.protocol import ServedProcess, success
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.reload_log import failed
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.reports import ServerReport
from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all
from fastlisten.runtime.sockets.taking_over import taken_over
from fastlisten.runtime.supervisor.back_off import BackOff
from fastlisten.runtime.supervisor.channel import (
    BadMessageError,
    Channel,
    ChannelClosedError,
    ChannelError,
    Message,
)
from fastlisten.runtime.supervisor.control_clients import ControlClients
from fastlisten.runtime.supervisor.control_messages import Line, lines_in
from fastlisten.runtime.supervisor.heartbeat import HungWorkers
from fastlisten.runtime.supervisor.lifecycle_messages import (
    ACCEPT,
    DRAINING,
    READY,
    SERVING,
)
from fastlisten.runtime.supervisor.login_penalties import SharedPenalties
from fastlisten.runtime.supervisor.pending import Pending, run
from fastlisten.runtime.supervisor.reload_messages import ANSWER as RELOAD_ANSWER
from fastlisten.runtime.supervisor.reload_phases import ReloadPhases
from fastlisten.runtime.supervisor.server_reload import ReloadedServer, reload_workers
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.upgrade import (
    SIGNALS,
    UpgradeError,
    become,
    differences,
    shape,
)
from fastlisten.runtime.supervisor.upgrading import Upgrading
from fastlisten.runtime.supervisor.upkeep import Upkeep
from fastlisten.runtime.supervisor.worker_process import Ended, State, WorkerProcess
from fastlisten.runtime.worker import StoppedError

__all__ = ["Line", "Supervisor", "WorkerStart"]

logger = logging.getLogger("fastlisten")

#: Exit codes of a worker after which it is not started again: the same would happen again.
_FINAL = (2, 3)

#: Exit codes of the supervisor.
_FAILED, _CANNOT_START = 1, 3

#: Seconds that a worker may take longer than `server.shutdown-timeout` before it is killed: its
#: handlers stop, and tasks that ignore their cancellation have five seconds.
KILL_AFTER = 10.0

#: Messages of one worker that are taken before the others get their turn: more than fit into a
#: channel, so that a worker that has ended is heard to the end.
_AT_A_TIME = 1000

_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a new process needs to be a worker.

    Attributes:
        plan: made before the fork.
        number: of the worker.
        sockets: the bound sockets; the process owns its copies.
        arena: to join.
        channel: to the supervisor.
        relay_row: the row of the arena that counts sessions with relays.
        relay_users: a file whose locks count those of each user.
        login_key: a secret of all workers for digests of wrong passwords.
    """

    plan: Plan
    number: int
    sockets: Sequence[BoundSocket]
    arena: Arena
    channel: Channel
    relay_row: int
    relay_users: int
    login_key: bytes = field(repr=False)


@dataclass(slots=True)
class _Slot:
    """One worker's number.

    Attributes:
        process: that serves, or is about to; None while there is none.
        successor: that is about to replace `process`.
        start_at: when to start a process, by the monotonic clock; None: not.
        back_off: the waits between crashes.
        given_up: its process could not start, and another one could not either.
        restarts: how often its process has crashed and was replaced.
    """

    number: int
    process: WorkerProcess | None = None
    successor: WorkerProcess | None = None
    start_at: float | None = None
    back_off: BackOff = field(default_factory=BackOff)
    given_up: bool = False
    restarts: int = 0


class Supervisor:
    """Runs the workers of a plan until it is told to stop.

    Args:
        plan: the server's plan.
        workers: how many, at least 2.
        be_worker: called in each new process; it never returns.
        announce: called with the lines about what is served, once.
        control_socket: the path of the control socket; empty for none, unless it is configured.
        manager: the service manager to notify, None for none.
        command: the program that an upgrade runs, an absolute path and options; empty for none.
        arguments: of that program, to serve.
        rest: ends the threads of this process, until they are needed again; called before an
            upgrade.

    Attributes:
        started: the first worker serves.
        reloaded: called with the configuration in use after each reload; may be set.
        control: monitors and controls all workers.
    """

    reloaded: Callable[[Config], object] | None

    def __init__(
        self,
        plan: Plan,
        workers: int,
        be_worker: Callable[[WorkerStart], NoReturn],
        announce: Callable[[Sequence[Line]], None],
        control_socket: str = "",
        *,
        manager: ServiceManager | None = None,
        command: Sequence[str] = (),
        arguments: Sequence[str] = (),
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.started = False
        self._manager = manager or ServiceManager({})
        self.reloaded = None
        self._plan = plan
        self._upkeep = Upkeep(self._manager, lambda: self._plan.certificates)
        self._be_worker = be_worker
        self._announce = announce
        self._slots = [_Slot(number) for number in range(workers)]
        self._processes: dict[int, WorkerProcess] = {}
        self._keys = 0
        self._sockets: list[BoundSocket] = []
        self._arena: Arena | None = None
        self._relay_row = 0
        self._relay_users = -1
        self._login_key = secrets.token_bytes(32)
        self._logins = SharedPenalties(self._send)
        self._signals = -1
        self._stops = 0
        self._code: int | None = None
        self._rolling: list[_Slot] = []
        self._restarting: Pending[bool] | None = None
        self._command = tuple(command)
        self._arguments = tuple(arguments)
        self._rest = rest
        self._phases: ReloadPhases | None = None  # of the reload that is under way
        self._next_reload: Pending[ReloadReport] | None = None
        self._reloads = 0
        self._hung = HungWorkers()
        self._control_path = plan.config.process["server.control-socket"] or control_socket
        self._clients: ControlClients | None = None
        # The working directory may change.
        self._config_path = os.path.realpath(plan.config.file) if plan.config.file else ""
        self.control = SupervisorControl(
            self._send, self._listeners, self._report, self._close_sockets, self._set_limit
        )
        self._upgrading = Upgrading(
            self._command,
            lambda: self._plan.config,
            self._require_quiet,
            lambda: self.control.busy,
            self._become,
        )

    def run(self, signals: int, state: Mapping[str, Any] | None = None) -> int:
        """Bind, serve until SIGTERM or SIGINT, drain.

        Args:
            signals: a descriptor from which the numbers of signals can be read, each an octet.
            state: what a former program has passed on: take over instead of binding.

        Returns:
            The exit code: 0 drained, 1 failed while running; what the first worker ended with if
            it could not start.

        Raises:
            StartError: a socket cannot be bound, or cannot listen.
            OSError: no process, descriptor or memory left at the start.
            UpgradeError: it cannot take over.
        """
        self._signals = signals
        if state is None:
            self._open_control_socket()
        try:
            if state is None:
                self._sockets = self._plan.bind()
                self._arena = self._plan.make_arena(3 * len(self._slots) + 1)
                self._relay_row = self._arena.add_row(SESSIONS)
                self._relay_users = os.memfd_create("fastlisten-relay-users", os.MFD_CLOEXEC)
                self._spawn(self._slots[0])
            else:
                try:
                    self._take_over(state)
                except BaseException:
                    # They drain when the channels end, which is better than to be killed.
                    self._processes.clear()
                    raise
            while not self._ended():
                self._wait()
                self._act()
        finally:
            self._upgrading.end()
            self._end_reload()
            self._kill_all()
            close_all(self._sockets)
            if self._relay_users >= 0:
                os.close(self._relay_users)
            if self._clients is not None:
                self._clients.close()
        if self._code is None:
            log(logger, logging.INFO, "server-stopped", "stopped")
        return self._code or 0

    # -- the loop

    def _ended(self) -> bool:
        return (self._stops > 0 or self._code is not None) and not self._processes

    def _wait(self) -> None:
        """Wait for a signal, a message or the next thing that is due, and take what has come."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        channels: dict[int, WorkerProcess] = {}
        for process in self._processes.values():
            if process.polled:
                channels[process.channel.fileno()] = process
                poll.register(process.channel.fileno(), select.POLLIN)
        clients = self._clients.polled() if self._clients is not None and self.started else {}
        for fd, events in clients.items():
            poll.register(fd, events)
        for fd, _ in poll.poll(self._timeout()):
            if fd == self._signals:
                self._take_signals()
            elif fd in clients:
                assert self._clients is not None
                self._clients.ready(fd)
            elif channels[fd].channel.fileno() == fd:  # else it has ended, and was waited for
                self._take_messages(channels[fd])

    def _timeout(self) -> float | None:
        """Return the milliseconds until something is due, None if nothing is."""
        times = [one.kill_at for one in self._processes.values()]
        if self._phases is None:
            times += [one.start_at for one in self._slots]
        else:
            times.append(self._phases.deadline)
        times += [self.control.deadline, self._hung.deadline, self._upkeep.deadline]
        times += [self._logins.deadline, self._upgrading.deadline]
        times += [self._clients.deadline if self._clients is not None else None]
        due = [time for time in times if time is not None]
        if not due:
            return None
        # Rounded up, so that the time has come after the wait.
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1

    def _act(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for process in self._processes.values():
            if process.kill_at is not None and process.kill_at <= now:
                process.kill_at = None
                text = "worker %d (pid %d) has not ended in time: killed"
                self._log(logging.ERROR, "worker-killed", text, process)
                process.kill()
        if self._phases is not None:
            self._phases.expire()
        for slot in self._slots:
            # During a reload nobody knows with which configuration.
            if self._phases is not None or slot.start_at is None:
                continue
            if slot.start_at <= now and self._has_room():
                slot.start_at = None
                self._try_to_spawn(slot)
        self.control.expire()
        self._logins.expire()
        if self._clients is not None:
            self._clients.expire()
        self._upkeep.act()
        if self._hung.deadline <= now:
            self._look_for_hung()
        self._upgrading.act()

    def _look_for_hung(self) -> None:
        assert self._arena is not None
        hung, back = self._hung.look(self._arena.heartbeats())
        for process in self._processes.values():
            if process.pid in hung:
                text = (
                    "worker %d (pid %d) does not react: its event loop has stood still for %.0f s"
                )
                seconds = self._hung.hung[process.pid]
                self._log(logging.ERROR, "worker-hung", text, process, seconds)
            if process.pid in back:
                self._log(logging.INFO, "worker-back", "worker %d (pid %d) reacts again", process)
        if self._phases is not None:
            self._phases.give_up([one.key for one in self._processes.values() if self._hangs(one)])
        if self._plan.unsettled:
            self._plan.settle(self._arena)

    def _hangs(self, process: WorkerProcess) -> bool:
        return process.pid in self._hung.hung

    # -- signals

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._signals, 4096):
                if number == signal.SIGCHLD:
                    continue
                self._take_signal(signal.Signals(number))
        # However many processes have ended: there may be one signal for several of them.
        self._reap()

    def _take_signal(self, number: signal.Signals) -> None:
        name = number.name
        if number in _STOPS:
            what = ("draining" if self.started else "stopping", "closing at once", "killing")
            said = what[min(self._stops, len(what) - 1)]
            log(logger, logging.INFO, "signal-received", "%s: %s", name, said, signal=name)
            self._stop()
        elif number == signal.SIGHUP:
            said = "reloading" if self.started else "reloading when the start is complete"
            if self._stops:
                said = "ignored while draining"
            log(logger, logging.INFO, "signal-received", "%s: %s", name, said, signal=name)
            self.reload()
        else:
            log(logger, logging.INFO, "signal-received", "%s: ignored", name, signal=name)

    def _stop(self) -> None:
        """Drain all workers; the second time close everything, the third time kill."""
        self._stops += 1
        self._end_reload()
        if self.started and self._stops == 1:
            self._manager.stopping("draining")
        self._rolling.clear()
        for slot in self._slots:
            slot.start_at = None
        for process in self._processes.values():
            if self._stops > 2:
                process.kill()
            else:
                self._stop_process(process, at_once=self._stops > 1)
        # New clients are refused instead of waiting for nobody.
        close_all(self._sockets)

    def _stop_process(self, process: WorkerProcess, *, at_once: bool = False) -> None:
        self.control.retire(process.key)
        patience = 0.0 if at_once else self._plan.config.process["server.shutdown-timeout"]
        process.stop(patience + KILL_AFTER, at_once=at_once)

    # -- processes

    def _has_room(self) -> bool:
        """Tell whether the arena has a member for one more process."""
        assert self._arena is not None
        return len(self._processes) < self._arena.members

    def _spawn(self, slot: _Slot) -> WorkerProcess:
        """Fork a process for a worker.

        Raises:
            OSError: no process or descriptor left.
        """
        assert self._arena is not None
        ours, theirs = Channel.pair()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_STOPS, signal.SIGHUP))
        try:
            pid = os.fork()
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._become_worker(slot.number, ours, theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._keys += 1
        process = WorkerProcess(self._keys, slot.number, pid, ours)
        self._processes[pid] = process
        if slot.process is None:
            slot.process = process
        else:
            slot.successor = process
        return process

    def _become_worker(self, number: int, ours: Channel, theirs: Channel) -> NoReturn:
        """Be the new process: close what belongs to the supervisor and to other workers."""
        try:
            assert self._arena is not None
            ours.close()
            for process in self._processes.values():
                process.channel.close()
            os.close(self._signals)
            if self._clients is not None:
                self._clients.leave()
            self._upgrading.leave()
            for bound in self._sockets:
                bound.unlink = None  # their files are the supervisor's
            start = WorkerStart(
                self._plan,
                number,
                self._sockets,
                self._arena,
                theirs,
                self._relay_row,
                self._relay_users,
                self._login_key,
            )
            self._be_worker(start)
        finally:
            # Whatever has happened, this process must not go on as a supervisor.
            os._exit(_FAILED)

    def _try_to_spawn(self, slot: _Slot) -> None:
        try:
            self._spawn(slot)
        except OSError as error:
            wait = max(1.0, slot.back_off.crashed(0))
            slot.start_at = time.monotonic() + wait
            text = "worker %d cannot be started: %s; trying again in %g s"
            fields: dict[str, object] = {"worker": slot.number, "error": str(error)}
            values = (slot.number, error.strerror, wait)
            log(logger, logging.ERROR, "worker-ended", text, *values, **fields)

    def _reap(self) -> None:
        """Wait for all processes that have ended."""
        for process in list(self._processes.values()):
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                del self._processes[pid]
                assert self._arena is not None
                self._arena.heal_process(pid)
                # What it has said last; its channel is closed on its side.
                if process.polled:
                    self._take_messages(process)
                self._remove(process)
                process.channel.close()
                self._process_ended(process, Ended.of(status))
        self._roll_on()

    def _process_ended(self, process: WorkerProcess, ended: Ended) -> None:
        slot = self._slots[process.number]
        asked = process.state is State.DRAINING
        level = logging.INFO if asked and ended.code == 0 else logging.ERROR
        text = "worker %d (pid %d) has ended: %s"
        fields: dict[str, object] = {"signal": ended.signal, "code": ended.code}
        self._log(level, "worker-ended", text, process, ended, **fields)
        if slot.successor is process:
            slot.successor = None
            if not asked:
                text = "worker %d: its successor could not start, so the old workers go on serving"
                number = slot.number
                log(logger, logging.ERROR, "restart-failed", text, number, worker=number)
            self._restarted(False)
            return
        if slot.process is not process:
            return
        slot.process, slot.successor = slot.successor, None
        if slot.process is not None or self._stops or self._code is not None:
            return
        if not self.started:
            # Its own messages have said why; a crash is the same as "cannot start".
            self._code = 0 if asked else ended.code or _CANNOT_START
            return
        if ended.code in _FINAL:
            self._give_up(slot, ended)
            return
        slot.restarts += not asked
        wait = slot.back_off.crashed(process.served)
        slot.start_at = time.monotonic() + wait
        if wait:
            text = "worker %d is started again in %g s"
            log(logger, logging.INFO, "worker-waits", text, slot.number, wait, worker=slot.number)

    def _give_up(self, slot: _Slot, ended: Ended) -> None:
        slot.given_up = True
        left = sum(not one.given_up for one in self._slots)
        text = "worker %d cannot start (%s) and is not started again; %d of %d workers are left"
        values = (slot.number, ended, left, len(self._slots))
        fields: dict[str, object] = {"worker": slot.number, "code": ended.code}
        log(logger, logging.ERROR, "worker-given-up", text, *values, **fields)
        if not left:
            self._code = _FAILED

    def _kill_all(self) -> None:
        """Leave no process behind, whatever has happened here."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            os.waitpid(process.pid, 0)
            process.channel.close()
        self._processes.clear()

    def _remove(self, process: WorkerProcess) -> None:
        """Expect nothing more of a process that has ended."""
        self.control.remove(process.key)
        self._logins.remove(process.key)
        if self._phases is not None:
            self._phases.remove(process.key)

    # -- messages

    def _take_messages(self, process: WorkerProcess) -> None:
        try:
            for _ in range(_AT_A_TIME):
                message = process.channel.receive()
                if message is None:
                    break
                message.close()
                self._take_message(process, message)
        except ChannelClosedError:
            # Its end is reported by SIGCHLD.
            process.polled = False
            self._remove(process)
        except BadMessageError as error:
            text = "worker %d (pid %d) has sent a message that no worker sends: %s; killed"
            self._log(logging.ERROR, "worker-killed", text, process, error, error=str(error))
            process.kill()

    def _take_message(self, process: WorkerProcess, message: Message) -> None:
        """Do what a message asks for.

        Raises:
            BadMessageError: no worker would send that now.
        """
        kind, state = message.kind, process.state
        if self.control.receive(process.key, kind, message.body):
            return
        if self._logins.receive(process.key, kind, message.body):
            return
        if kind == RELOAD_ANSWER:
            if self._phases is not None:
                self._phases.receive(process.key, message.body)
            return
        if kind == READY and state is State.STARTING:
            process.state = State.READY
            self._process_ready(process)
        elif kind == SERVING and state is State.READY:
            process.state = State.SERVING
            process.began = time.monotonic()
            self._process_serves(process, lines_in(message.body.get("lines")))
        elif kind == DRAINING and state is not State.DRAINING:
            self._process_drains(process)
        elif state is not State.DRAINING:
            raise BadMessageError(f"{kind!r} while it is {state.value}")

    def _process_ready(self, process: WorkerProcess) -> None:
        if not self.started:
            listen_all(self._sockets)
        changes = self.control.changes()
        self.control.add(process.key, process.number)
        # If it does not read its first message, it has ended or will be seen to hang.
        with contextlib.suppress(ChannelError):
            process.channel.send(ACCEPT, {"changes": changes})

    def _process_serves(self, process: WorkerProcess, lines: Sequence[Line]) -> None:
        self._log(logging.INFO, "worker-started", "worker %d (pid %d) serves", process)
        slot = self._slots[process.number]
        if not self.started:
            self.started = True
            self._announce(lines)
            for note in self._plan.notes:
                log(logger, logging.WARNING, "configuration-warning", "%s", note, error=note)
            self._notify_ready()
            self._upkeep.begin()
            for other in self._slots:
                if other.process is None:
                    other.start_at = time.monotonic()
            self._begin_reload()
        elif slot.successor is process:
            old, slot.process, slot.successor = slot.process, process, None
            if old is not None:
                self._stop_process(old)
        self._roll_on()

    def _process_drains(self, process: WorkerProcess) -> None:
        """Replace a worker that somebody has told to stop."""
        self.control.retire(process.key)
        process.state = State.DRAINING
        timeout = self._plan.config.process["server.shutdown-timeout"]
        process.kill_at = time.monotonic() + timeout + KILL_AFTER
        slot = self._slots[process.number]
        if slot.process is process and self.started and not self._stops:
            slot.process, slot.successor = slot.successor, None
            if slot.process is None:
                slot.start_at = time.monotonic()
        if self._phases is not None:
            self._phases.remove(process.key)

    # -- the control socket

    def _open_control_socket(self) -> None:
        identity = self._plan.identity
        owner = None if identity is None else (identity.uid, identity.gid)
        file = open_control_socket(self._plan.config, self._control_path, owner)
        if file is not None:
            self._clients = ControlClients(file, self._served())

    def _served(self) -> ServedProcess:
        return ServedProcess(
            self.control,
            self._reload_for,
            os.getpid(),
            self._config_path,
            self._restart_for,
            self._upgrading.request,
        )

    async def _reload_for(self, by: str) -> Mapping[str, object]:
        """Reload for a client of the control socket; return the answer."""
        log(logger, logging.INFO, "reload-requested", "reload requested by %s", by, by=by)
        report = await self.reload()
        return report.plain()

    async def _restart_for(self, by: str) -> Mapping[str, object]:
        """Replace all workers for a client of the control socket; return the answer."""
        log(logger, logging.INFO, "restart-requested", "restart requested by %s", by, by=by)
        return {"succeeded": await self.restart(), "workers": len(self._slots)}

    # -- an upgrade, in the former program

    def _require_quiet(self) -> None:
        """Raise an `UpgradeError` if something goes on that the new program could not continue."""
        if self._stops or self._code is not None:
            raise UpgradeError("the server is stopping")
        if self._restarting is not None:
            raise UpgradeError("workers are being replaced; try again when that is done")
        if self._phases is not None or self._next_reload is not None:
            raise UpgradeError("a reload is under way; try again when that is done")

    def _become(self) -> UpgradeError:
        """Become the new program, or return why that is not possible.

        Signals that come from here on are kept by the kernel. Those that have come are taken here:
        once they are blocked, and no other thread is left that may just be handling one.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._rest()
            self._take_signals()
            self._require_quiet()
            state, descriptors = self._state()
            self._manager.reloading()
            if self._manager.watchdog:  # the new program has the whole time for its start
                self._manager.alive()
            self._rest()
            error = become((*self._command, *self._arguments), state, descriptors)
            self._notify_ready()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return error

    def _state(self) -> tuple[dict[str, Any], list[int]]:
        """Return what the new program needs, as a JSON value, and the descriptors in it."""
        arena = self._arena
        assert arena is not None
        assert self._clients is not None
        processes = list(self._processes.values())
        clients = self._clients.state()
        state = {
            "shape": shape(self._plan.config),
            "arena": [arena.fd, arena.wakeups],
            "rows": self._plan.rows_state(),
            "relay-row": self._relay_row,
            "relay-users": self._relay_users,
            "login-key": self._login_key.hex(),
            "logins": self._logins.state(),
            "sockets": [
                [one.sock.fileno(), one.listener, one.bind.text, one.unlink]
                for one in self._sockets
            ],
            "processes": [one.state_of() for one in processes],
            "keys": self._keys,
            "reloads": self._reloads,
            "slots": [
                {
                    "process": slot.process and slot.process.pid,
                    "successor": slot.successor and slot.successor.pid,
                    "start-at": slot.start_at,
                    "crashes": slot.back_off.crashes,
                    "given-up": slot.given_up,
                    "restarts": slot.restarts,
                }
                for slot in self._slots
            ],
            "control": self.control.state(),
            "clients": clients,
        }
        descriptors = [arena.fd, *arena.wakeups, self._relay_users, clients["fd"]]
        descriptors += [one["fd"] for one in clients["clients"]]
        descriptors += [one.sock.fileno() for one in self._sockets]
        descriptors += [one.channel.fileno() for one in processes]
        return state, descriptors

    # -- an upgrade, in the new program

    def _take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what `_state` has returned in the former program.

        Raises:
            UpgradeError: that is not possible.
            OSError: a descriptor is something else.
        """
        if problems := differences(state["shape"], shape(self._plan.config)):
            raise UpgradeError("; ".join(problems))
        fd, wakeups = state["arena"]
        for one in (fd, *wakeups, state["relay-users"]):
            os.set_inheritable(one, False)
        self._arena = Arena.attach(fd, wakeups)
        self._plan.take_rows(state["rows"], self._arena)
        self._relay_row = state["relay-row"]
        self._relay_users = state["relay-users"]
        self._login_key = bytes.fromhex(state["login-key"])
        self._logins.take_over(state["logins"])
        listeners = {one.id: one for one in self._plan.config.listeners}
        for number, listener, bind, unlink in state["sockets"]:
            self._sockets.append(taken_over(number, listeners[listener], bind, unlink))
        listen_all(self._sockets)  # with the backlogs of the file as it is now
        for one in state["processes"]:
            process = WorkerProcess.taken_over(one)
            self._processes[process.pid] = process
        self._keys = state["keys"]
        self._reloads = state["reloads"]
        for slot, one in zip(self._slots, state["slots"], strict=True):
            slot.process = self._processes.get(one["process"])
            slot.successor = self._processes.get(one["successor"])
            slot.start_at = one["start-at"]
            slot.back_off = BackOff(one["crashes"])
            slot.given_up = one["given-up"]
            slot.restarts = one["restarts"]
        self.started = True
        self.control.take_over(state["control"])
        answer: Pending[bytes] = Pending()
        self._clients = ControlClients.taken_over(state["clients"], self._served(), answer)
        log(logger, logging.INFO, "upgraded", "the new program has taken over")
        for note in self._plan.notes:
            log(logger, logging.WARNING, "configuration-warning", "%s", note, error=note)
        self._notify_ready()
        self._upkeep.begin()
        # Before the first fork, or the worker would have them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # Their SIGCHLD may have come while no handler was installed.
        self._reap()
        replaced = self.restart()
        replaced.when_done(lambda: answer.resolve(self._upgraded(replaced.result())))

    def _upgraded(self, succeeded: bool) -> bytes:
        """Return the answer to the client that has requested the upgrade."""
        return success(upgrade={"succeeded": succeeded, "workers": len(self._slots)})

    # -- for the control of all workers

    def _send(self, key: int, kind: str, body: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a worker a message.

        Raises:
            ChannelError: it does not read, or has ended.
        """
        for process in self._processes.values():
            if process.key == key:
                process.channel.send(kind, body, fds)
                return
        raise ChannelClosedError("the process has ended")

    def _listeners(self) -> Collection[str]:
        return [settings.id for settings in self._plan.config.listeners]

    def _report(self) -> ServerReport:
        plan = self._plan
        hung = [one.number for one in self._processes.values() if one.pid in self._hung.hung]
        return ServerReport(
            {slot.number: slot.restarts for slot in self._slots},
            plan.reload_succeeded,
            plan.certificates.expiry(),
            tuple(hung),
        )

    def _set_limit(self, listener: str, limit: int) -> int:
        """Set the limit of a listener for all workers; return the one before."""
        assert self._arena is not None
        places = self._plan.places(self._arena, 0, listener)
        before, places.limit = places.limit, limit
        return before

    def _close_sockets(self, listener: str) -> None:
        """Close the sockets of a listener that the workers drain: nobody accepts any more."""
        close_all([bound for bound in self._sockets if bound.listener == listener])
        self._sockets = [bound for bound in self._sockets if bound.listener != listener]

    # -- while it runs

    def reload(self) -> Pending[ReloadReport]:
        """Reload the configuration in all workers, by difference, and all or nothing.

        Reloads run one after another; one that has not begun yet is returned instead of another
        one that would read the same file.

        Returns:
            The report, once the reload has ended; everything is logged.
        """
        if self._next_reload is None:
            outcome: Pending[ReloadReport] = Pending()
            if self._stops or self._code is not None:
                outcome.resolve(self._not_reloaded())
                return outcome
            self._next_reload = outcome
            self._begin_reload()
            return outcome
        return self._next_reload

    def _begin_reload(self) -> None:
        """Begin the next reload, unless there is none, or something else must end first."""
        outcome = self._next_reload
        if outcome is None or not self.started or self._stops or self._code is not None:
            return
        if self._phases is not None or self._restarting is not None:
            return
        assert self._arena is not None
        self._next_reload = None
        self._reloads += 1
        self._phases = ReloadPhases(self._reloads, self._send)
        self._manager.reloading()
        keys = [
            process.key
            for process in self._processes.values()
            if process.state is State.SERVING and not self._hangs(process)
        ]
        server = ReloadedServer(self._plan, self._sockets, self._arena, keys, self.control.drained)
        reload = run(reload_workers(server, self._phases, self._adopt, self._replace))

        def ended() -> None:
            self._phases = None
            report = reload.result()
            self._plan.reload_succeeded = report.succeeded
            if not self._stops:
                self._notify_ready()
            outcome.resolve(report)
            self._roll_on()
            self._begin_reload()

        reload.when_done(ended)

    def _end_reload(self) -> None:
        """The server stops: a reload that is not committed is abandoned."""
        outcome, self._next_reload = self._next_reload, None
        if self._phases is not None:
            self._phases.cancel(StoppedError("stopped while reloading"))
        if outcome is not None:
            outcome.resolve(self._not_reloaded())

    def _not_reloaded(self) -> ReloadReport:
        return failed(self._plan.config.file, "the server is stopping")

    def _adopt(self, plan: Plan, sockets: list[BoundSocket]) -> None:
        """Use what a reload has made, here and for workers to come."""
        here = {settings.id for settings in plan.config.listeners}
        self.control.forget([id for id in self._listeners() if id not in here])
        self._plan, self._sockets = plan, sockets
        for id in tuple(self.control.drained):
            self._close_sockets(id)  # in the meantime
        if self.reloaded is not None:
            self.reloaded(plan.config)

    def _replace(self, committed: Collection[int] | None, lost: Collection[int]) -> None:
        """Start other processes instead of those that have not taken part in a reload to its end.

        Args:
            committed: keys of those that have the new plan; the others are replaced. They have
                begun to serve in the meantime, and drain. None: the plan is still the same.
            lost: keys of those that have not answered; they are killed.
        """
        for process in self._processes.values():
            if self._stops or process.state is State.DRAINING:
                continue
            if process.key in lost or (committed is not None and self._hangs(process)):
                text = "worker %d (pid %d) has not answered during the reload: killed"
                self._log(logging.ERROR, "worker-killed", text, process)
                self.control.retire(process.key)
                process.state = State.DRAINING
                process.kill()
            elif committed is not None and process.key not in committed:
                self._stop_process(process)
            else:
                continue
            slot = self._slots[process.number]
            if slot.process is process:
                slot.process = None
                slot.start_at = time.monotonic()

    def _notify_ready(self) -> None:
        plan = self._plan
        count = len(plan.config.listeners)
        listeners = "1 listener" if count == 1 else f"{count:,} listeners"
        text = f"{listeners}, {len(self._slots)} workers"
        failed = "" if plan.reload_succeeded else "; the last reload failed"
        self._manager.ready(f"serving {text}{failed}")

    def restart(self) -> Pending[bool]:
        """Replace all workers, one after the other: the new one serves before the old one drains.

        New processes import handlers and applications again, as they are on disk then. A worker
        that could not start before is tried again.

        Returns:
            Whether all of them were replaced, once that is known.
        """
        if self._restarting is None:
            outcome: Pending[bool] = Pending()
            if not self.started or self._stops:
                outcome.resolve(False)
                return outcome
            self._restarting = outcome
            for slot in self._slots:
                if slot.process is None:
                    slot.given_up = False
                    slot.start_at = time.monotonic()
            self._rolling = list(self._slots)
            self._roll_on()
            return outcome
        return self._restarting

    def _restarted(self, succeeded: bool) -> None:
        """End a restart."""
        self._rolling.clear()
        outcome, self._restarting = self._restarting, None
        if outcome is not None:
            outcome.resolve(succeeded)
        self._begin_reload()

    def _roll_on(self) -> None:
        """Replace the next worker of a restart, if there is one and the last one is done."""
        if self._restarting is None or self._phases or any(one.successor for one in self._slots):
            return
        while self._rolling and self._has_room():
            slot = self._rolling.pop(0)
            if slot.process is not None:
                self._try_to_spawn(slot)
                return
        if not self._rolling:
            self._restarted(True)

    def _log(
        self,
        level: int,
        event: str,
        text: str,
        process: WorkerProcess,
        *values: object,
        **fields: object,
    ) -> None:
        """Log something about a process; the text begins with `worker %d (pid %d)`."""
        number, pid = process.number, process.pid
        log(logger, level, event, text, number, pid, *values, worker=number, pid=pid, **fields)
