"""A worker without descriptors: the others serve its clients, it recovers, places are exact.

Rules of this file: the kernel's limit of one worker is lowered with prlimit(2) to the descriptors
that it has, so that each accept4(2) fails with EMFILE; nothing is injected. It is the worker with
the fewest connections, which is the first to be told of new ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path

from support.figures import show
from support.waiting import until
from support.workers import WHO, Workers, line, stopped, workers

WORKERS = 4
LIMIT = 150

#: Clients of the other workers, so that the starved one is the first to be told of new ones.
STAYING = 60


def starve(pid: int) -> tuple[int, int]:
    """Let a process open no more descriptors; return its limits."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    first_free = next(number for number in range(len(used) + 1) if number not in used)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    return before


def episodes(server: Workers) -> list[str]:
    """Return the log's lines about failures to accept, each with its worker and its count."""
    return re.findall(r".*accept failed .*", server.err)


def places_are(server: Workers, free: int) -> bool:
    """Tell whether so many more clients are served at a time, and no more."""
    with contextlib.ExitStack() as stack:
        said = [line(stack.enter_context(server.connect())) for _ in range(free + 1)]
    return all(one[:-1].isdigit() for one in said[:-1]) and said[-1] == b"refused: limit\n"


def answer(server: Workers) -> bytes:
    """Return what a new client hears first."""
    with server.connect() as client:
        return line(client)


def test_clients_of_a_worker_without_descriptors_are_served_by_others(tmp_path: Path) -> None:
    text = f"{WHO}max-connections = {LIMIT}\n"
    with workers(tmp_path, WORKERS, text) as four, contextlib.ExitStack() as stack:
        starved = four.pids[0]
        with stopped(starved):
            staying = [stack.enter_context(four.connect()) for _ in range(STAYING)]
            assert all(line(client)[:-1].isdigit() for client in staying)
        limits = starve(starved)
        attempts = 0
        # Its episode is logged a second after its first failure.
        while attempts < 200 or not episodes(four):
            assert four.ask() != starved
            attempts += 1
        until(lambda: places_are(four, LIMIT - STAYING), "the places of those that have left")
        resource.prlimit(starved, resource.RLIMIT_NOFILE, limits)
        before = attempts
        while four.ask() != starved:
            attempts += 1
        stack.close()
        until(lambda: places_are(four, LIMIT), "all places")
        (said,) = episodes(four)
        assert "EMFILE" in said
        assert four.end() == 0
    show(
        f"{attempts:,} clients, all served",
        f"{before:,} of them while a worker of {WORKERS} had no descriptor",
        said.partition("fastlisten: ")[2],
    )


def test_clients_are_refused_when_no_worker_has_descriptors(tmp_path: Path) -> None:
    with workers(tmp_path, WORKERS) as four, contextlib.ExitStack() as stack:
        for pid in four.pids:
            stack.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, starve(pid))
        # Each may leave a client to the others, until it sees that they do not accept either.
        assert answer(four) == b"refused: overload\n"
        stack.close()
        until(lambda: answer(four)[:-1].isdigit(), "a worker that serves")
        assert four.end() == 0


def test_clients_in_the_queue_of_a_worker_without_descriptors_are_refused(tmp_path: Path) -> None:
    # The other workers accept clients of the second listener, and would not refuse those.
    text = f"{WHO}socket.reuse-port = true\n{WHO.replace('.it]', '.shared]')}"
    with workers(tmp_path, WORKERS, text) as four, contextlib.ExitStack() as stack:
        starved = four.pids[0]
        stack.callback(resource.prlimit, starved, resource.RLIMIT_NOFILE, starve(starved))
        said: list[bytes] = []
        # The kernel chooses a queue for each; nobody else can serve those in that of this worker.
        while said.count(b"refused: overload\n") < 3:
            said.append(answer(four))
        others = {b"%d\n" % pid for pid in four.pids[1:]}
        assert set(said) - {b"refused: overload\n"} <= others
        stack.close()
        until(lambda: answer(four) == b"%d\n" % starved, "the worker to serve again")
        assert four.end() == 0
