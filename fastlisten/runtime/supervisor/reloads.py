"""The reloads of a server with several workers: one after another, and what happens around them.

    request ──> waits for the start, a restart, an upgrade ──> all workers take it ──> report
                                                                 └─ the rest is replaced

Rules of this file: when a reload begins, and what becomes of processes that had no part in it; the
steps are in server_reload.py. While it runs, no process is started: nobody knows with which
configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastlisten.config import Config
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.reload_log import failed
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.supervisor.pending import Pending, run
from fastlisten.runtime.supervisor.reload_messages import ANSWER
from fastlisten.runtime.supervisor.reload_phases import ReloadPhases
from fastlisten.runtime.supervisor.server_reload import ReloadedServer, reload_workers
from fastlisten.runtime.supervisor.shared_state import SharedState
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.worker_process import State
from fastlisten.runtime.supervisor.workers import Workers
from fastlisten.runtime.worker import StoppedError

__all__ = ["Reloads"]


class Reloads:
    """Reloads, one at a time.

    Args:
        shared: gets the new plan.
        workers: get it, too, or are replaced.
        control: knows which listeners were drained on request.
        must_wait: tells whether something goes on that has to end before a reload.
        begins: called when a reload begins.
        ends: called when it has ended, unless the server stops.

    Attributes:
        reloaded: called with the configuration in use after each reload; may be set.
    """

    reloaded: Callable[[Config], object] | None

    def __init__(
        self,
        shared: SharedState,
        workers: Workers,
        control: SupervisorControl,
        *,
        must_wait: Callable[[], bool],
        begins: Callable[[], object],
        ends: Callable[[], object],
    ) -> None:
        self.reloaded = None
        self._shared = shared
        self._workers = workers
        self._control = control
        self._must_wait = must_wait
        self._begins = begins
        self._ends = ends
        self._count = 0
        self._phases: ReloadPhases | None = None  # of the reload that is under way
        self._next: Pending[ReloadReport] | None = None

    # -- when

    def request(self) -> Pending[ReloadReport]:
        """Let `act` reload the configuration in all workers, by difference, and all or nothing.

        One that has not begun yet is returned instead of another one that would read the same file.

        Returns:
            The report, once the reload has ended; everything is logged.
        """
        if self._next is not None:
            return self._next
        outcome: Pending[ReloadReport] = Pending()
        if self._workers.ends:
            outcome.resolve(self._not_reloaded())
        else:
            self._next = outcome
        return outcome

    @property
    def under_way(self) -> bool:
        """Whether a reload has begun and not ended."""
        return self._phases is not None

    @property
    def deadline(self) -> float | None:
        """When to call `act`, by the monotonic clock, if nothing else happens; None: not at all."""
        if self._phases is not None:
            return self._phases.deadline
        return 0.0 if self._can_begin() else None

    def act(self) -> None:
        """Do what is due, and begin the next reload if there is one."""
        if self._phases is not None:
            self._phases.expire()
        if self._phases is None and self._can_begin():
            self._begin()

    def stop(self) -> None:
        """The server stops: a reload that is not committed is abandoned."""
        outcome, self._next = self._next, None
        if self._phases is not None:
            self._phases.cancel(StoppedError("stopped while reloading"))
        if outcome is not None:
            outcome.resolve(self._not_reloaded())

    def _can_begin(self) -> bool:
        ready = self._workers.started and not self._workers.ends
        return self._next is not None and ready and not self._must_wait()

    def _not_reloaded(self) -> ReloadReport:
        return failed(self._shared.plan.config.file, "the server is stopping")

    # -- what happens meanwhile

    def receive(self, key: int, kind: str, body: Mapping[str, Any]) -> bool:
        """Take a message from a worker; return whether it is one of ours.

        Raises:
            BadMessageError: no worker would send that.
        """
        if kind != ANSWER:
            return False
        if self._phases is not None:
            self._phases.receive(key, body)
        return True

    def remove(self, key: int) -> None:
        """Wait no longer for a worker that has ended, or drains."""
        if self._phases is not None:
            self._phases.remove(key)

    def give_up_hung(self) -> None:
        """Wait no longer for workers that hang."""
        if self._phases is not None:
            self._phases.give_up([one.key for one in self._workers if self._workers.hangs(one)])

    # -- one reload

    def _begin(self) -> None:
        assert self._next is not None
        outcome, self._next = self._next, None
        self._count += 1
        self._phases = ReloadPhases(self._count, self._workers.send)
        self._begins()
        shared, workers = self._shared, self._workers
        serving = {
            one.key: one.number
            for one in workers
            if one.state is State.SERVING and not workers.hangs(one)
        }
        drained, size = self._control.drained, len(workers.slots)
        server = ReloadedServer(shared.plan, shared.sockets, shared.arena, size, serving, drained)
        reload = run(reload_workers(server, self._phases, self._adopt, self._replace))

        def ended() -> None:
            self._phases = None
            report = reload.result()
            shared.plan.reload_succeeded = report.succeeded
            if not workers.stopping:
                self._ends()
            outcome.resolve(report)

        reload.when_done(ended)

    def _adopt(self, plan: Plan, sockets: list[BoundSocket]) -> None:
        """Use what a reload has made, here and for workers to come."""
        here = {settings.id for settings in plan.config.listeners}
        self._control.forget([id for id in self._shared.listeners if id not in here])
        self._shared.adopt(plan, sockets)
        for id in tuple(self._control.drained):
            self._shared.close_listener(id)  # in the meantime
        if self.reloaded is not None:
            self.reloaded(plan.config)

    def _replace(self, committed: Collection[int] | None, lost: Collection[int]) -> list[str]:
        """Start other processes instead of those that have not taken part in a reload to its end.

        Args:
            committed: keys of those that have the new plan; the others are replaced. They have
                begun to serve in the meantime, and drain. None: the plan is still the same.
            lost: keys of those that have not answered; they are killed.

        Returns:
            A sentence about each that is killed.
        """
        killed = []
        for process in self._workers:
            if self._workers.stopping or process.state is State.DRAINING:
                continue
            if process.key in lost or (committed is not None and self._workers.hangs(process)):
                text = "worker %d (pid %d) has not answered during the reload: killed and replaced"
                process.log(logging.ERROR, "worker-killed", text)
                killed.append(text % (process.number, process.pid))
                self._workers.kill(process)
            elif committed is not None and process.key not in committed:
                self._workers.drain(process)
                self._workers.replace(process)
        return killed

    # -- an upgrade

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to go on, as a JSON value."""
        return {"count": self._count, "wanted": self._next is not None}

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` has returned in a former program."""
        self._count = state["count"]
        if state["wanted"]:
            self.request()
