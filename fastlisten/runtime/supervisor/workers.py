"""The workers: which processes serve, which replace them, and when another one is started.

    start_at ──fork──> process ──ends──> start_at (back-off), or given up (exit code 2 or 3)
                          │ drains, or a successor serves
                          └──> replaced; it is only waited for

Rules of this file: numbers, processes and times; not what processes say, and not why they are
replaced. Nothing waits for a process, but `kill_all`, which ends the supervisor. The places of a
process that has ended are given back before anything else is done.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from fastlisten.log_events import log
from fastlisten.runtime.supervisor.channel import Channel, ChannelClosedError
from fastlisten.runtime.supervisor.forking import fork
from fastlisten.runtime.supervisor.heartbeat import HungWorkers
from fastlisten.runtime.supervisor.shared_state import SharedState, WorkerStart
from fastlisten.runtime.supervisor.slot import Slot
from fastlisten.runtime.supervisor.worker_process import Ended, State, WorkerProcess

__all__ = ["KILL_AFTER", "SHORTAGE", "Workers"]

logger = logging.getLogger("fastlisten")

#: Exit codes of a worker after which it is not started again: the same would happen again.
_FINAL = (2, 3)

#: The exit code of a worker that cannot start because descriptors or memory have run out: another
#: one is started later.
SHORTAGE = os.EX_TEMPFAIL

#: Exit codes of the server.
_FAILED, _CANNOT_START = 1, 3

#: Seconds that a worker may take longer than `server.shutdown-timeout` before it is killed: its
#: handlers stop, and tasks that ignore their cancellation have five seconds.
KILL_AFTER = 10.0


class Workers:
    """The workers of a server.

    Args:
        shared: what each process gets.
        count: how many workers, at least 2.
        be_worker: called in each new process; it never returns.
        leave: called in each new process: closes what is the supervisor's.
        retire: called with the key of a process before it drains or is killed.

    Attributes:
        slots: by the workers' numbers.
        started: a worker has begun to serve.
        stopping: nothing is started any more.
        code: the exit code of the server, if it ends because of its workers; else None.
    """

    def __init__(
        self,
        shared: SharedState,
        count: int,
        be_worker: Callable[[WorkerStart], NoReturn],
        leave: Callable[[], None],
        retire: Callable[[int], None],
    ) -> None:
        self.slots = [Slot(number) for number in range(count)]
        self.started = False
        self.stopping = False
        self.code: int | None = None
        self._shared = shared
        self._be_worker = be_worker
        self._leave = leave
        self._retire = retire
        self._processes: dict[int, WorkerProcess] = {}
        self._keys = 0
        self._hung = HungWorkers()

    # -- which there are

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(tuple(self._processes.values()))

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def ends(self) -> bool:
        """Whether the server ends."""
        return self.stopping or self.code is not None

    def send(self, key: int, kind: str, body: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a process a message.

        Raises:
            ChannelError: it does not read, or has ended.
        """
        for process in self._processes.values():
            if process.key == key:
                process.channel.send(kind, body, fds)
                return
        raise ChannelClosedError("the process has ended")

    def is_successor(self, process: WorkerProcess) -> bool:
        """Tell whether a process is about to replace another one."""
        return self.slots[process.number].successor is process

    # -- those that hang

    @property
    def next_look(self) -> float:
        """When to call `look_for_hung`, by the monotonic clock."""
        return self._hung.deadline

    def look_for_hung(self) -> None:
        """Find the processes whose loops do not turn, and those whose loops do so again."""
        hung, back = self._hung.look(self._shared.arena.heartbeats())
        for process in self:
            if process.pid in hung:
                text = (
                    "worker %d (pid %d) does not react: its event loop has stood still for %.0f s"
                )
                process.log(logging.ERROR, "worker-hung", text, self._hung.hung[process.pid])
            if process.pid in back:
                process.log(logging.INFO, "worker-back", "worker %d (pid %d) reacts again")

    def hangs(self, process: WorkerProcess) -> bool:
        """Tell whether a process was found to hang."""
        return process.pid in self._hung.hung

    # -- starting

    def has_room(self) -> bool:
        """Tell whether the arena has a member for one more process."""
        return len(self._processes) < self._shared.arena.members

    @property
    def next_start(self) -> float | None:
        """When to call `start_due`, by the monotonic clock; None: not until something happens."""
        if not self.has_room():
            return None
        return min((one.start_at for one in self.slots if one.start_at is not None), default=None)

    def start_due(self) -> None:
        """Start the processes that are due, if there is room for them."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.start_at is not None and slot.start_at <= now and self.has_room():
                slot.start_at = None
                self.try_to_spawn(slot)

    def start_missing(self) -> None:
        """Start a process for each number that has none, as soon as possible."""
        for slot in self.slots:
            if slot.process is None:
                slot.given_up = False
                slot.start_at = time.monotonic()

    def try_to_spawn(self, slot: Slot) -> None:
        """Fork a process for a worker; later, if that is not possible."""
        try:
            self.spawn(slot)
        except OSError as error:
            wait = max(1.0, slot.back_off.crashed(0))
            slot.start_at = time.monotonic() + wait
            text = "worker %d cannot be started: %s; trying again in %g s"
            fields: dict[str, object] = {"worker": slot.number, "error": str(error)}
            values = (slot.number, error.strerror, wait)
            log(logger, logging.ERROR, "worker-ended", text, *values, **fields)

    def spawn(self, slot: Slot) -> None:
        """Fork a process for a worker: its successor, if it has a process.

        Raises:
            OSError: no process or descriptor left.
        """
        pid, channel = fork(lambda own: self._become_worker(slot.number, own))
        self._keys += 1
        process = WorkerProcess(self._keys, slot.number, pid, channel)
        self._processes[pid] = process
        if slot.process is None:
            slot.process = process
        else:
            slot.successor = process

    def _become_worker(self, number: int, channel: Channel) -> NoReturn:
        """Be the new process: close what belongs to the supervisor and to other workers."""
        for process in self._processes.values():
            process.channel.close()
        self._leave()
        self._be_worker(self._shared.start_of(number, channel))

    # -- replacing

    def take_turn(self, process: WorkerProcess) -> WorkerProcess | None:
        """A successor serves: it is its number's process now. Return the one that it replaces."""
        slot = self.slots[process.number]
        old, slot.process, slot.successor = slot.process, process, None
        return old

    def drain(self, process: WorkerProcess, *, at_once: bool = False) -> None:
        """Let a process drain and end, or end at once."""
        self._retire(process.key)
        process.stop(KILL_AFTER if at_once else self._patience, at_once=at_once)

    def drains(self, process: WorkerProcess) -> None:
        """Somebody has told a process to drain: replace it."""
        self._retire(process.key)
        process.state = State.DRAINING
        process.kill_at = time.monotonic() + self._patience
        self.replace(process)

    def kill(self, process: WorkerProcess) -> None:
        """Kill a process and replace it."""
        self._retire(process.key)
        process.state = State.DRAINING
        process.kill()
        self.replace(process)

    def replace(self, process: WorkerProcess) -> None:
        """A process is not its number's any more: its successor is, or one is started."""
        slot = self.slots[process.number]
        if slot.process is process and self.started and not self.ends:
            slot.process, slot.successor = slot.successor, None
            if slot.process is None:
                slot.start_at = time.monotonic()

    @property
    def _patience(self) -> float:
        """Seconds that a process that drains has before it is killed."""
        timeout: float = self._shared.plan.config.process["server.shutdown-timeout"]
        return timeout + KILL_AFTER

    # -- ending

    def stop(self) -> None:
        """Start nothing any more."""
        self.stopping = True
        for slot in self.slots:
            slot.start_at = None

    @property
    def next_kill(self) -> float | None:
        """When to call `kill_due`, by the monotonic clock; None: not at all."""
        times = (one.kill_at for one in self._processes.values())
        return min((one for one in times if one is not None), default=None)

    def kill_due(self) -> None:
        """Kill the processes that should have ended by now."""
        now = time.monotonic()
        for process in self._processes.values():
            if process.kill_at is not None and process.kill_at <= now:
                process.kill_at = None
                text = "worker %d (pid %d) has not ended in time: killed"
                process.log(logging.ERROR, "worker-killed", text)
                process.kill()

    def kill_all(self) -> None:
        """Leave no process behind, whatever has happened here."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            os.waitpid(process.pid, 0)
            process.channel.close()
        self._processes.clear()

    def let_go(self) -> None:
        """Forget all processes; those that are there drain when their channels end."""
        self._processes.clear()

    def take_ended(self) -> Iterator[tuple[WorkerProcess, Ended]]:
        """Wait for the processes that have ended, and give back their places.

        Whoever iterates closes their channels and calls `ended`.
        """
        for process in self:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                del self._processes[pid]
                self._shared.arena.heal_process(pid)
                yield process, Ended.of(status)

    def ended(self, process: WorkerProcess, ended: Ended) -> None:
        """A process has ended: log it, and decide whether and when another one is started."""
        slot = self.slots[process.number]
        asked = process.state is State.DRAINING
        level = logging.INFO if asked and ended.code == 0 else logging.ERROR
        text = "worker %d (pid %d) has ended: %s"
        fields: dict[str, object] = {"signal": ended.signal, "code": ended.code}
        process.log(level, "worker-ended", text, ended, **fields)
        if slot.successor is process:
            slot.successor = None
            if not asked:
                text = "worker %d: its successor could not start, so the old workers go on serving"
                number = slot.number
                log(logger, logging.ERROR, "restart-failed", text, number, worker=number)
            return
        if slot.process is not process:
            return
        slot.process, slot.successor = slot.successor, None
        if slot.process is not None or self.ends:
            return
        if not self.started:
            # Its own messages have said why; a crash is the same as "cannot start".
            code = _CANNOT_START if ended.code == SHORTAGE else ended.code
            self.code = 0 if asked else code or _CANNOT_START
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

    def _give_up(self, slot: Slot, ended: Ended) -> None:
        slot.given_up = True
        self._shared.close_queues(slot.number)
        left = sum(not one.given_up for one in self.slots)
        text = "worker %d cannot start (%s) and is not started again; %d of %d workers are left"
        values = (slot.number, ended, left, len(self.slots))
        fields: dict[str, object] = {"worker": slot.number, "code": ended.code}
        log(logger, logging.ERROR, "worker-given-up", text, *values, **fields)
        if not left:
            self.code = _FAILED

    # -- an upgrade

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to go on, as a JSON value."""
        return {
            "processes": [one.state_of() for one in self._processes.values()],
            "keys": self._keys,
            "slots": [one.state() for one in self.slots],
        }

    def descriptors(self) -> list[int]:
        """Return the descriptors in `state`."""
        return [one.channel.fileno() for one in self._processes.values()]

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` has returned in a former program.

        Raises:
            UpgradeError: a channel is something else.
        """
        for one in state["processes"]:
            process = WorkerProcess.taken_over(one)
            self._processes[process.pid] = process
        self._keys = state["keys"]
        for slot, one in zip(self.slots, state["slots"], strict=True):
            slot.take_over(one, self._processes)
        self.started = True
