"""The supervisor: starts the workers, replaces those that end, and serves nobody itself.

    start ──> first worker ready ──> listen ──> all workers ──> ... ──> stop ──> all have ended
                 │ it fails                        │ one ends: healed, replaced
                 └─> its exit code                 └ (exit 2 or 3: not again)

It holds the sockets and the arena, so a client that connects while a worker is replaced waits in
the socket's queue, and the places of a dead one are given back after waitpid(2).

Here are the loop and the signals. The other parts:

    shared_state.py   what all processes have in common
    workers.py        which processes there are, when they are started and killed
    worker_events.py  what processes say, and how they end
    restarting.py     replaces all of them
    reloads.py        changes the configuration in all of them
    upgrading.py      replaces this program; handover.py is what the new one is given
    control_access.py the control socket; supervisor_control.py controls all workers

Rules of this file: one thread, one poll(2), no event loop; it never waits for a worker. Nothing of
others is imported here: it may be root. What workers send is checked: they have fewer privileges.
What a part remembers must survive an upgrade.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fastlisten.log_events import log
from fastlisten.runtime.control_socket.protocol import success
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reports import ServerReport
from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.supervisor.control_access import ControlAccess
from fastlisten.runtime.supervisor.control_messages import Line
from fastlisten.runtime.supervisor.handover import Handover
from fastlisten.runtime.supervisor.reloads import Reloads
from fastlisten.runtime.supervisor.restarting import Restarting
from fastlisten.runtime.supervisor.shared_logins import SharedLogins
from fastlisten.runtime.supervisor.shared_state import SharedState, WorkerStart
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.upgrade import (
    SIGNALS,
    UpgradeError,
    become,
)
from fastlisten.runtime.supervisor.upgrading import Upgrading
from fastlisten.runtime.supervisor.upkeep import Upkeep
from fastlisten.runtime.supervisor.worker_events import WorkerEvents
from fastlisten.runtime.supervisor.worker_process import WorkerProcess
from fastlisten.runtime.supervisor.workers import Workers

__all__ = ["Supervisor"]

logger = logging.getLogger("fastlisten")

_STOPS = (signal.SIGTERM, signal.SIGINT)


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
        control: monitors and controls all workers.
        reloads: reload the configuration.
    """

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
        self._announce = announce
        self._manager = manager or ServiceManager({})
        self._signals = -1
        self._stops = 0
        self._command = tuple(command)
        self._arguments = tuple(arguments)
        self._rest = rest
        shared = self._shared = SharedState(plan, workers)
        self._workers = Workers(
            shared, workers, be_worker, self._leave, lambda key: self.control.retire(key)
        )
        send = self._workers.send
        self._logins = SharedLogins(send)
        self._upkeep = Upkeep(self._manager, lambda: shared.plan.certificates)
        self.control = SupervisorControl(
            send,
            lambda: shared.listeners,
            self._report,
            shared.close_listener,
            shared.set_limit,
        )
        self._restarting = Restarting(self._workers)
        self._upgrading = Upgrading(
            self._command,
            lambda: shared.plan.config,
            self._require_quiet,
            lambda: self.control.busy,
            self._become,
        )
        self.reloads = Reloads(
            shared,
            self._workers,
            self.control,
            must_wait=lambda: self._restarting.under_way or self._upgrading.under_way,
            begins=self._manager.reloading,
            ends=self._notify_ready,
        )
        self._events = WorkerEvents(
            shared,
            self._workers,
            self.control,
            self._logins,
            self.reloads,
            self._restarting,
            self._first_serves,
        )
        self._access = ControlAccess(
            plan,
            control_socket,
            workers,
            self.control,
            self.reloads,
            self._restarting,
            self._upgrading.request,
        )
        self._handover = Handover(
            shared, self._workers, self._logins, self.control, self.reloads, self._access
        )

    @property
    def started(self) -> bool:
        """Whether the first worker has begun to serve."""
        return self._workers.started

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
        workers = self._workers
        if state is None:
            self._access.open()
        try:
            if state is None:
                count = len(workers.slots)
                self._shared.open(count, members=3 * count + 1)
                workers.spawn(workers.slots[0])
            else:
                try:
                    self._take_over(state)
                except BaseException:
                    # They drain when the channels end, which is better than to be killed.
                    workers.let_go()
                    raise
            while len(workers) or not workers.ends:
                self._wait()
                self._act()
        finally:
            self._upgrading.end()
            self.reloads.stop()
            workers.kill_all()
            self._shared.close()
            self._access.close()
        if workers.code is None:
            log(logger, logging.INFO, "server-stopped", "stopped")
        return workers.code or 0

    # -- the loop

    def _wait(self) -> None:
        """Wait for a signal, a message or the next thing that is due, and take what has come."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        channels: dict[int, WorkerProcess] = {}
        for process in self._workers:
            if process.polled:
                channels[process.channel.fileno()] = process
                poll.register(process.channel.fileno(), select.POLLIN)
        clients = self._access.polled() if self.started else {}
        for fd, events in clients.items():
            poll.register(fd, events)
        for fd, _ in poll.poll(self._timeout()):
            if fd == self._signals:
                self._take_signals()
            elif fd in clients:
                self._access.ready(fd)
            elif channels[fd].channel.fileno() == fd:  # else it has ended, and was waited for
                self._events.take_messages(channels[fd])

    def _timeout(self) -> float | None:
        """Return the milliseconds until something is due, None if nothing is."""
        times = [
            self._workers.next_kill,
            self.reloads.deadline,
            None if self.reloads.under_way else self._workers.next_start,
            self.control.deadline,
            self._logins.deadline,
            self._access.deadline,
            self._upkeep.deadline,
            self._workers.next_look,
            self._upgrading.deadline,
        ]
        due = [time for time in times if time is not None]
        if not due:
            return None
        # Rounded up, so that the time has come after the wait.
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1

    def _act(self) -> None:
        """Do what is due."""
        self._workers.kill_due()
        self.control.expire()
        self._logins.expire()
        self._access.expire()
        self._upkeep.act()
        if self._workers.next_look <= time.monotonic():
            self._workers.look_for_hung()
            self.reloads.give_up_hung()
            self._shared.settle()
        self._upgrading.act()
        self.reloads.act()
        if not self.reloads.under_way:
            self._restarting.go_on()
            self._workers.start_due()

    # -- signals

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._signals, 4096):
                if number == signal.SIGCHLD:
                    continue
                self._take_signal(signal.Signals(number))
        # However many processes have ended: there may be one signal for several of them.
        self._events.reap()

    def _take_signal(self, number: signal.Signals) -> None:
        name = number.name
        if number in _STOPS:
            what = ("draining" if self.started else "stopping", "closing at once", "killing")
            said = what[min(self._stops, len(what) - 1)]
        elif number == signal.SIGHUP:
            said = "reloading" if self.started else "reloading when the start is complete"
            if self._upgrading.under_way:
                said = "reloading after the upgrade"
            if self._stops:
                said = "ignored while draining"
        else:
            said = "ignored"
        log(logger, logging.INFO, "signal-received", "%s: %s", name, said, signal=name)
        if number in _STOPS:
            self._stop()
        elif number == signal.SIGHUP:
            self.reloads.request()

    def _stop(self) -> None:
        """Drain all workers; the second time close everything, the third time kill."""
        self._stops += 1
        self.reloads.stop()
        if self.started and self._stops == 1:
            self._manager.stopping("draining")
        self._workers.stop()
        self._restarting.end(succeeded=False)
        for process in self._workers:
            if self._stops > 2:
                process.kill()
            else:
                self._workers.drain(process, at_once=self._stops > 1)
        # New clients are refused instead of waiting for nobody.
        close_all(self._shared.sockets)

    def _leave(self) -> None:
        """Close what belongs to the supervisor, in a forked process."""
        os.close(self._signals)
        self._access.leave()
        self._upgrading.leave()

    # -- what others are told

    def _first_serves(self, lines: Sequence[Line]) -> None:
        self._announce(lines)
        self._begin_to_serve()

    def _begin_to_serve(self) -> None:
        for note in self._shared.plan.notes:
            log(logger, logging.WARNING, "configuration-warning", "%s", note, error=note)
        self._notify_ready()
        self._upkeep.begin()

    def _notify_ready(self) -> None:
        plan = self._shared.plan
        count = len(plan.config.listeners)
        listeners = "1 listener" if count == 1 else f"{count:,} listeners"
        text = f"{listeners}, {len(self._workers.slots)} workers"
        failed = "" if plan.reload_succeeded else "; the last reload failed"
        self._manager.ready(f"serving {text}{failed}")

    def _report(self) -> ServerReport:
        plan = self._shared.plan
        return ServerReport(
            {slot.number: slot.restarts for slot in self._workers.slots},
            plan.reload_succeeded,
            plan.certificates.expiry(),
            tuple(one.number for one in self._workers if self._workers.hangs(one)),
        )

    # -- an upgrade, in the former program

    def _require_quiet(self) -> None:
        """Raise an `UpgradeError` if something goes on that the new program could not continue."""
        if self._workers.ends:
            raise UpgradeError("the server is stopping")
        if self._restarting.under_way:
            raise UpgradeError("workers are being replaced; try again when that is done")
        if self.reloads.under_way:
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
            state, descriptors = self._handover.state()
            self._manager.reloading()
            if self._manager.watchdog:  # the new program has the whole time for its start
                self._manager.alive()
            self._rest()
            error = become((*self._command, *self._arguments), state, descriptors)
            self._notify_ready()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return error

    # -- an upgrade, in the new program

    def _take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what the former program has handed over.

        Raises:
            UpgradeError: that is not possible.
            OSError: a descriptor is something else.
        """
        answer = self._handover.take_over(state)
        log(logger, logging.INFO, "upgraded", "the new program has taken over")
        self._begin_to_serve()
        # Before the first fork, or the worker would have them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # Their SIGCHLD may have come while no handler was installed.
        self._events.reap()
        replaced = self._restarting.begin()
        count = len(self._workers.slots)

        def upgraded() -> None:
            answer.resolve(success(upgrade={"succeeded": replaced.result(), "workers": count}))

        replaced.when_done(upgraded)
