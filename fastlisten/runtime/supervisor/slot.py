"""What the supervisor knows about one worker's number, whichever processes it has over time.

Rules of this file: no decisions; they are made in workers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.runtime.supervisor.back_off import BackOff
from fastlisten.runtime.supervisor.worker_process import WorkerProcess

__all__ = ["Slot"]


@dataclass(slots=True)
class Slot:
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

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to know of it, as a JSON value."""
        return {
            "process": self.process and self.process.pid,
            "successor": self.successor and self.successor.pid,
            "start-at": self.start_at,
            "crashes": self.back_off.crashes,
            "given-up": self.given_up,
            "restarts": self.restarts,
        }

    def take_over(self, state: Mapping[str, Any], processes: Mapping[int, WorkerProcess]) -> None:
        """Go on from what `state` has returned in a former program.

        Args:
            state: of the same number.
            processes: all that there are, by process id.
        """
        self.process = processes.get(state["process"])
        self.successor = processes.get(state["successor"])
        self.start_at = state["start-at"]
        self.back_off = BackOff(state["crashes"])
        self.given_up = state["given-up"]
        self.restarts = state["restarts"]
