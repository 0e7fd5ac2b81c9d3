"""Hold a very large number of connections in the workers of one server, on one port.

Rules of this file: the workers of a supervisor share the port, the limit and the arena; the clients
are spread over as many load generators as their descriptors need. See `hold.py`, which runs it.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.build import build
from benchmarks.held_clients import meminfo, ping, say, shares_of
from benchmarks.measure import held_connections
from benchmarks.process import Load, MeasurementError
from benchmarks.worker_group import WorkerGroup, share
from benchmarks.workloads import SOURCES

__all__ = ["ROOM", "WORKER_CANDIDATES", "hold_workers"]

#: The candidates to choose from.
WORKER_CANDIDATES = {
    "fastlisten": ("benchmarks.candidates.workers_fastlisten",),
    "fastlisten lazy": ("benchmarks.candidates.workers_fastlisten", "--lazy"),
    "uvloop": ("benchmarks.candidates.workers_shared",),
}

#: The most connections that one client process opens.
ROOM = held_connections(10_000_000)

#: Connections that all clients together open at a time. The kernel drops clients beyond the
#: backlog (4,096, unless net.core.somaxconn is less), and they try again a second later.
IN_FLIGHT = 2048

#: Connections from one client address: an address has 28,232 ports, and the kernel searches long
#: for one of the last.
PER_SOURCE = 4000

#: Longest time for opening, and for all answers, in seconds.
OPENING, ANSWERING = 900, 240

#: Seconds that the workers get to settle before their memory is read.
SETTLE = 2.0


def _memory(server: WorkerGroup) -> dict[str, int]:
    return {**server.memories(), "slab": meminfo("Slab")}


def hold_workers(
    connections: int, workers: int, candidate: str, descriptors: int = 0
) -> dict[str, Any]:
    """Open and hold the connections, and have each answer once.

    Args:
        connections: the total.
        workers: number of workers of the one server.
        candidate: name of the candidate that serves.
        descriptors: the limit of open files of each worker; 0 for that of this process.

    Returns:
        The result: times in seconds, memory in bytes, connections of each worker.

    Raises:
        MeasurementError: a connection could not be opened or did not answer.
        BuildError: a program could not be compiled.
    """
    build()
    clients = -(-connections // ROOM)
    module, *options = WORKER_CANDIDATES[candidate]
    command = [sys.executable, "-m", module, *options]
    if descriptors:
        command += ["--descriptors", str(descriptors)]
    options = ["--greeting", "--tally", "--sources", str(max(SOURCES, connections // PER_SOURCE))]
    options += ["--in-flight", str(max(1, min(64, IN_FLIGHT // clients)))]
    options += ["--duration", str(OPENING), "--grace", str(ANSWERING)]
    with ExitStack() as stack:
        server = stack.enter_context(WorkerGroup(command, workers))
        say(f"servers: {' '.join(map(str, (server.serving, *server.workers)))}")
        time.sleep(SETTLE)
        before = _memory(server)

        begun = time.monotonic()
        loads = [
            stack.enter_context(
                Load("hold", server.port, None, [*options, "--connections", str(share)])
            )
            for share in shares_of(connections, clients)
        ]
        tallies = []
        for load in loads:
            opened = load.event("open", OPENING + ANSWERING)
            tallies.append(server.counts(opened["tally"]))
        counts = [sum(column) for column in zip(*tallies, strict=True)]
        opening = time.monotonic() - begun
        say(f"opened {sum(counts):,} in {opening:.1f} s")
        time.sleep(SETTLE)
        resting = _memory(server)

        answered, answering = ping(loads, 2 * ANSWERING)
        time.sleep(SETTLE)
        after = _memory(server)
        pids = [server.pid, server.serving, *server.workers, *(load.pid for load in loads)]
    if not sum(counts) == answered == connections:
        raise MeasurementError(f"{sum(counts):,} of {connections:,} opened, {answered:,} answered")
    return {
        "candidate": candidate,
        "tls": "",
        "connections": connections,
        "workers": workers,
        "descriptors": descriptors,
        "clients": clients,
        "counts": counts,
        "share": share(counts),
        "pids": pids,
        "opening": opening,
        "answered": answered,
        "answering": answering,
        "before": before,
        "resting": resting,
        "after": after,
    }
