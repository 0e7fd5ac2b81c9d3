"""Workers that are stopped, and one that is slow: no client waits for them, and load is balanced.

Rules of this file: nothing is asserted about time. How long the slowest client waited for its
greeting is printed; a client that waits for a stopped worker would wait until the test fails.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.figures import show
from support.waiting import until
from support.workers import WHO, Workers, line, stopped, workers

WORKERS = 4

#: For each set of stopped workers.
CLIENTS = 500

#: Seconds for which a slow worker stands still at a time.
STANDSTILL = 0.2


class Waits:
    """Clients that come one after the other, and how long each waited for its greeting.

    Attributes:
        served: how many each worker has served, by process id.
        longest: the longest wait, in seconds.
    """

    def __init__(self, server: Workers) -> None:
        self._server = server
        self.served: Counter[int] = Counter()
        self.longest = 0.0

    def clients(self, count: int) -> None:
        """Connect so many; each must be greeted."""
        for _ in range(count):
            began = time.monotonic()
            self.served[self._server.ask()] += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def clients_until(self, condition: Callable[[], bool], what: str) -> None:
        """Connect clients until a condition holds."""

        def holds() -> bool:
            self.clients(1)
            return condition()

        until(holds, what)

    def __str__(self) -> str:
        return f"the longest wait was {1000 * self.longest:.0f} ms"


@pytest.mark.parametrize("count", [1, 3])
def test_stopped_workers_stall_no_client(tmp_path: Path, count: int) -> None:
    with workers(tmp_path, WORKERS) as four:
        waits = Waits(four)
        # Each set, because some of them are on duty and others not.
        sets = list(itertools.combinations(four.pids, count))
        for pids in sets:
            before = Counter(waits.served)
            with stopped(*pids):
                waits.clients(CLIENTS)
            served = waits.served - before
            assert served.total() == CLIENTS
            assert not served.keys() & set(pids)
        # All take part again.
        waits.clients_until(lambda: set(waits.served) == set(four.pids), "all workers")
        assert four.end() == 0
    show(
        f"{len(sets)} times {count} of {WORKERS} workers stopped, {CLIENTS} clients each time, "
        f"all greeted by the others; {waits}"
    )


@contextlib.contextmanager
def slow(server: Workers, pid: int) -> Iterator[list[int]]:
    """Let a worker stand still again and again while the block runs.

    Yields:
        An item for each time.
    """
    times: list[int] = []
    ends = threading.Event()
    with server.served_by(pid) as client:

        def run() -> None:
            while not ends.is_set():
                client.sendall(b"block %g\n" % STANDSTILL)
                assert line(client).startswith(b"block")
                times.append(1)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            until(lambda: times, "the slow worker")
            yield times
        finally:
            ends.set()
            thread.join()


def test_slow_worker_stalls_no_client(tmp_path: Path) -> None:
    with workers(tmp_path, WORKERS) as four:
        waits = Waits(four)
        pid = four.pids[0]
        with slow(four, pid) as times:
            waits.clients(CLIENTS)
            waits.clients_until(lambda: len(times) >= 10, "a worker that is slow")
            count = len(times)
        assert four.end() == 0
    clients, its = waits.served.total(), waits.served[pid]
    # It was blocked for nearly all of the time, and the others took nearly all of the clients.
    assert its < clients / WORKERS
    show(
        f"one of {WORKERS} workers blocked {count} times for {1000 * STANDSTILL:.0f} ms",
        f"{clients} clients greeted, {its} of them by this worker",
        str(waits),
    )


# --- balance --------------------------------------------------------------------------------------


def balanced(tmp_path: Path, count: int, seed: int) -> None:
    """Let clients arrive that stay, and others: nobody holds more than 1.2 times its share."""
    chance = random.Random(seed)
    with workers(tmp_path, WORKERS, f"{WHO}max-connections = {2 * count}\n") as four:
        with contextlib.ExitStack() as stack:
            held: Counter[int] = Counter()
            passing: Counter[int] = Counter()
            while held.total() < count:
                burst = [four.connect() for _ in range(chance.randint(1, 20))]
                for client in burst:
                    stack.enter_context(client)
                    pid = int(line(client))
                    if chance.random() < 0.3 or held.total() == count:
                        client.close()
                        passing[pid] += 1
                    else:
                        held[pid] += 1
            share = count / WORKERS
            assert len(held) == WORKERS
            assert max(held.values()) <= 1.2 * share, held
        assert four.end() == 0
    show(
        f"{count} connections that stay and {passing.total()} that do not, over {WORKERS} workers",
        f"held by each: {', '.join(str(held[pid]) for pid in sorted(held))}",
        f"the most is {max(held.values()) / share:.2f} of a share",
    )


def test_long_connections_are_balanced_over_workers(tmp_path: Path) -> None:
    balanced(tmp_path, 1000, seed=1)
