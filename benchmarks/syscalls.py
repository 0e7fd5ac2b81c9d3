"""Counts system calls per accepted connection with strace.

Rules of this file: it counts and does not time, because a traced server is slow. The server is
traced from its start; calls before the first connection and after the last are not counted.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Load, MeasurementError, Server
from benchmarks.workloads import SOURCES, Workload

__all__ = ["OPTION_CALLS", "Calls", "count_options", "parse"]

#: Calls that set or get a socket option.
OPTION_CALLS = ("setsockopt", "getsockopt")

#: Number of connections counted, after the same number as a warm-up.
CONNECTIONS = 200

#: Seconds: the longest wait for strace's output, and how long the output must not have grown.
PATIENCE, QUIET = 5.0, 0.2

#: A line of ``strace -f``; the second line of a resumed call does not match.
_LINE = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Calls:
    """System calls per connection.

    Attributes:
        options: the sum of `OPTION_CALLS`.
        all: the number of each call, by name. A traced server gets its events one by one, so it
            waits more often than usual.
    """

    options: float
    all: dict[str, float]


def parse(trace: str, connections: int) -> Calls:
    """Return the calls per connection in a trace."""
    counts = Counter(_LINE.findall(trace))
    per_connection = {name: count / connections for name, count in sorted(counts.items())}
    return Calls(sum(per_connection.get(name, 0.0) for name in OPTION_CALLS), per_connection)


def count_options(
    command: Sequence[str], workload: Workload, server_core: int, client_core: int
) -> Calls:
    """Run a server under strace and count what its connections cost.

    Raises:
        MeasurementError: strace is missing or not permitted, or connections failed.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise MeasurementError("the program strace was not found")
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        traced = [strace, "-f", "-qq", "-o", str(trace), *command]
        with Server(traced, server_core) as server:
            load = [*workload.options, "--sources", str(SOURCES), "--duration", "60"]
            load += ["--count", str(CONNECTIONS)]
            sizes = []
            for _ in range(2):
                with Load(workload.mode, server.port, client_core, load) as run:
                    if run.event("done")["operations"] != CONNECTIONS:
                        raise MeasurementError("some connections were not served")
                sizes.append(_written(trace))
        with trace.open("rb") as file:
            file.seek(sizes[0])
            return parse(file.read(sizes[1] - sizes[0]).decode(errors="replace"), CONNECTIONS)


def _written(trace: Path) -> int:
    """Return the size of the trace once it has stopped growing."""
    until = time.monotonic() + PATIENCE
    size = trace.stat().st_size
    while time.monotonic() < until:
        time.sleep(QUIET)
        now = trace.stat().st_size
        if now == size:
            return now
        size = now
    return size
