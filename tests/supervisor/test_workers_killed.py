"""Workers killed at random moments under a storm of clients: the limit holds, no place is lost.

Rules of this file: SIGKILL hits whatever instruction a worker is at, while it starts, serves, takes
a place or gives one back. The long form is marked soak and prints its figures.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.figures import show
from support.kernel import ended
from support.storm import Storm
from support.waiting import until
from support.workers import WHO, Workers, line, patched, workers

WORKERS = 4
LIMIT = 16
CLIENTS = 48

#: A killed worker is replaced at once, as if it were the first that has crashed.
EAGER = (
    "from fastlisten.runtime.supervisor.back_off import BackOff\n"
    "BackOff.crashed = lambda self, served: 0.0\n"
)


class Killer:
    """Kills workers, each time after a random while.

    Attributes:
        killed: the process ids so far.
    """

    def __init__(self, four: Workers) -> None:
        self._four = four
        self._next = 0.0
        self.killed: set[int] = set()

    def step(self, chance: random.Random) -> None:
        """Kill a worker if it is time."""
        if time.monotonic() < self._next:
            return
        pids = [pid for pid in self._four.pids if pid not in self.killed]
        if pids:
            self.killed.add(pid := chance.choice(pids))
            os.kill(pid, signal.SIGKILL)
        # Starting takes some 100 ms: so some are killed while they start, others while they serve.
        self._next = time.monotonic() + chance.uniform(0.0, 0.3)


def all_places_are_free(four: Workers) -> bool:
    """Tell whether as many clients as allowed are served at a time, and no more."""
    with contextlib.ExitStack() as stack:
        said = [line(stack.enter_context(four.connect())) for _ in range(LIMIT + 1)]
    served = [one for one in said if one[:-1].isdigit()]
    return len(served) == LIMIT and said[-1] == b"refused: limit\n"


def kill(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill that many workers in a storm; show what happened."""
    began = time.monotonic()
    text = f"{WHO}max-connections = {LIMIT}\n"
    with workers(tmp_path, WORKERS, text, environ=patched(tmp_path, EAGER)) as four:
        killer = Killer(four)
        storm = Storm(four.program.port(), LIMIT, CLIENTS, seed)
        try:
            storm.blow(lambda: len(killer.killed) < kills, killer.step)
        finally:
            storm.calm()
        until(lambda: four.err.count("has ended: SIGKILL") == kills, "all ends")
        until(lambda: len(four.pids) == WORKERS, "four workers")
        until(lambda: all_places_are_free(four), "free places")
        pids = four.pids
        assert four.end() == 0
        assert all(ended(pid) for pid in pids)
    assert "Traceback" not in four.err
    assert storm.served > LIMIT
    assert storm.refused > 0
    assert storm.lost > 0
    assert storm.most <= LIMIT
    show(f"{kills} workers killed in {time.monotonic() - began:.0f} s", str(storm))


def test_limit_holds_while_workers_are_killed(tmp_path: Path) -> None:
    kill(tmp_path, 10, seed=1)


@pytest.mark.soak
def test_limit_holds_while_500_workers_are_killed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    kill(tmp_path, 500, seed)
