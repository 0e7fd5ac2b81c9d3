"""Candidate: `fastlisten serve` with several workers, a greeting and an echo.

The first line printed is the port, the supervisor's id and the word "tree", because its children
serve; it is printed when all workers serve. The server ends when this program's standard input
does, and when this program ends in another way.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.build import ROOT
from benchmarks.candidates.process_tree import (
    await_end,
    end_with_parent,
    give_up,
    kill_descendants,
    reap_orphans,
)
from benchmarks.process import end_when_told

__all__ = ["configuration"]

#: Seconds that the workers have to start, and that the server has to end.
STARTING, ENDING = 60.0, 8.0

#: Longer than any measurement: an idle client is not to be closed in the middle of one.
LONG = "12h"


def configuration(
    workers: int,
    directory: Path,
    *,
    lazy: bool = False,
    limit: int = 1_000_000,
    wait: bool = False,
    reuse_port: bool = False,
    backlog: int = 4096,
) -> str:
    """Return a configuration with one listener.

    Args:
        workers: how many.
        directory: for the server's files.
        lazy: Python objects are created at the first byte.
        limit: `max-connections`.
        wait: clients beyond the limit wait.
        reuse_port: each worker has a queue of its own.
        backlog: `socket.backlog`; the default has room for the clients of several programs.
    """
    handler = "Lazy" if lazy else "Eager"
    return f"""\
[server]
hostname = "mail.example.org"
workers = {workers}
shutdown-timeout = "1s"
data-directory = "{directory}"

[server.listener.bench]
bind = "127.0.0.1:0"
protocol = "bench"
handler = "benchmarks.candidates.workers_handler:{handler}"
max-connections = {limit}
limit-action = "{"wait" if wait else "refuse"}"
socket.backlog = {backlog}
socket.reuse-port = {str(reuse_port).lower()}
timeout.first-byte = "{LONG}"
timeout.idle = "{LONG}"
"""


def _prepare(descriptors: int) -> None:
    """Between fork and exec: limit the server's descriptors, let it end with this program."""
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    end_with_parent()


def _await_workers(process: subprocess.Popen[bytes], output: Path, workers: int) -> int:
    """Return the port once all workers serve."""
    until = time.monotonic() + STARTING
    while True:
        said = output.read_text()
        port = re.search(r'listener "bench": .* on 127\.0\.0\.1:(\d+)', said)
        if port and said.count(" serves") == workers:
            return int(port[1])
        if process.poll() is not None or time.monotonic() > until:
            give_up(f"its workers do not serve: {' / '.join(said.splitlines()[-3:])}")
        time.sleep(0.02)


def main() -> None:
    """Run the server until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--lazy", action="store_true")
    parser.add_argument("--limit", type=int, default=1_000_000)
    parser.add_argument("--wait", action="store_true", help="clients beyond the limit wait")
    parser.add_argument("--reuse-port", action="store_true")
    parser.add_argument("--descriptors", type=int, default=0, help="of each worker; 0: no change")
    given = parser.parse_args()
    end_when_told()
    reap_orphans()
    with tempfile.TemporaryDirectory(prefix="fastlisten-benchmarks-") as name:
        directory = Path(name)
        file, log = directory / "bench.toml", directory / "log"
        text = configuration(
            given.workers,
            directory,
            lazy=given.lazy,
            limit=given.limit,
            wait=given.wait,
            reuse_port=given.reuse_port,
        )
        file.write_text(text)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "fastlisten", "serve", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: _prepare(given.descriptors),
            )
        try:
            print(_await_workers(process, log, given.workers), process.pid, "tree", flush=True)
            await_end()
            process.send_signal(signal.SIGTERM)
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill_descendants()


if __name__ == "__main__":
    main()
