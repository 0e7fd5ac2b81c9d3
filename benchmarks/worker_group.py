"""A server of several worker processes, and what each of them does.

Rules of this file: it reads /proc and interprets nothing. Every candidate's workers are children of
one process, whose id the candidate prints.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import MeasurementError, Server, memory_of, usage_of

__all__ = ["Activity", "WorkerGroup", "share"]

#: Processes are idle when a look after this many seconds finds that they used less than a tenth of
#: it; the longest wait for that.
QUIET, SETTLING = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class Activity:
    """What processes have done since they began.

    Attributes:
        cpu: seconds on a core.
        wake_ups: how often a thread of theirs went to sleep and was woken (voluntary context
            switches).
    """

    cpu: float
    wake_ups: int

    def __add__(self, other: Activity) -> Activity:
        return Activity(self.cpu + other.cpu, self.wake_ups + other.wake_ups)

    def __sub__(self, other: Activity) -> Activity:
        return Activity(self.cpu - other.cpu, self.wake_ups - other.wake_ups)


def _activity_of(pid: int) -> Activity:
    wake_ups = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                wake_ups += int(line.split()[1])
    return Activity(usage_of(pid).cpu, wake_ups)


class WorkerGroup(Server):
    """A candidate with several workers.

    Attributes:
        workers: their process ids.
    """

    def __init__(self, command: Sequence[str], workers: int) -> None:
        super().__init__([*command, "--workers", str(workers)], None)
        children = Path(f"/proc/{self.serving}/task/{self.serving}/children").read_text()
        self.workers = tuple(map(int, children.split()))
        if len(self.workers) != workers:
            self.close()
            raise MeasurementError(f"{len(self.workers)} workers instead of {workers}: {command}")

    def activity(self) -> Activity:
        """Return what all workers have done so far.

        Raises:
            MeasurementError: one has ended.
        """
        try:
            return sum(map(_activity_of, self.workers), Activity(0.0, 0))
        except (FileNotFoundError, ProcessLookupError):
            raise MeasurementError(f"a worker has ended: {self.command}") from None

    def parent_activity(self) -> Activity:
        """Return what the parent of the workers has done so far."""
        return _activity_of(self.serving)

    def settle(self) -> None:
        """Wait until the workers are idle, but not for ever."""
        until = time.monotonic() + SETTLING
        before = self.activity()
        while time.monotonic() < until:
            time.sleep(QUIET)
            now = self.activity()
            if now.cpu - before.cpu < QUIET / 10:
                return
            before = now

    def memories(self) -> dict[str, int]:
        """Return `Private_Dirty` and `Pss` of all workers and of their parent, in bytes."""
        each = [memory_of(pid) for pid in self.workers]
        parent = memory_of(self.serving)
        return {
            "user": sum(one["Private_Dirty"] for one in each),
            "pss": sum(one["Pss"] for one in each),
            "parent": parent["Private_Dirty"],
            "parent pss": parent["Pss"],
        }

    def counts(self, tally: Mapping[str, int]) -> list[int]:
        """Return a tally of greetings by worker, in the order of `workers`.

        Raises:
            MeasurementError: a process has greeted that is no worker.
        """
        strangers = tally.keys() - set(map(str, self.workers))
        if strangers:
            raise MeasurementError(f"processes {sorted(strangers)} have greeted: {self.command}")
        return [tally.get(str(pid), 0) for pid in self.workers]

    @contextlib.contextmanager
    def stopped(self, worker: int) -> Iterator[None]:
        """Stop a worker with SIGSTOP while the block runs."""
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)


def share(counts: Sequence[int]) -> float:
    """Return how many times its share the worker with the most has: the maximum over the mean."""
    return max(counts) * len(counts) / sum(counts)
