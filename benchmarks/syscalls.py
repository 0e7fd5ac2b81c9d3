"""System calls per accepted connection, counted by strace.

Rules of this file: a count and not a time, since a traced server is slow. The server is traced
from its start; what is written before the first connection and after the last is not counted.
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

#: Calls that set or ask for an option of a socket.
OPTION_CALLS = ("setsockopt", "getsockopt")

#: Connections counted, after as many that are not.
CONNECTIONS = 200

#: Longest wait for strace to have written what happened, in seconds, and when it has.
PATIENCE, QUIET = 5.0, 0.2

#: A line of ``strace -f``; the second line of a call that was interrupted does not count again.
_LINE = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls per connection.

    Attributes:
        options: those of `OPTION_CALLS` together.
        all: each call by its name. Under strace events come singly, so waiting is dearer than it
            is in truth.
    """

    options: float
    all: dict[str, float]


def parse(trace: str, connections: int) -> Calls:
    """Return the calls per connection of a trace's text."""
    counts = Counter(_LINE.findall(trace))
    per_connection = {name: count / connections for name, count in sorted(counts.items())}
    return Calls(sum(per_connection.get(name, 0.0) for name in OPTION_CALLS), per_connection)


def count_options(
    command: Sequence[str], workload: Workload, server_core: int, client_core: int
) -> Calls:
    """Run a server under strace and count what its connections cost.

    Raises:
        MeasurementError: there is no strace, or it may not trace, or connections failed.
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
                        raise MeasurementError("not every connection was served")
                sizes.append(_written(trace))
        with trace.open("rb") as file:
            file.seek(sizes[0])
            return parse(file.read(sizes[1] - sizes[0]).decode(errors="replace"), CONNECTIONS)


def _written(trace: Path) -> int:
    """Return the trace's size once it does not grow any more."""
    until = time.monotonic() + PATIENCE
    size = trace.stat().st_size
    while time.monotonic() < until:
        time.sleep(QUIET)
        now = trace.stat().st_size
        if now == size:
            return now
        size = now
    return size
