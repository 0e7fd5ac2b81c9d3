"""Hold a very large number of connections and use each once: ``python -m benchmarks.hold``.

Rules of this file: one run, not a comparison, and no process is pinned to a core. It reports memory
and whether every connection answered. Each server process has its own port and its own load
generator. Servers could share one port (SO_REUSEPORT), but the kernel balances only roughly, and a
process has a limited number of descriptors; with equal shares, 11 processes are always enough for
200,000 connections. How worker processes share a connection limit is not measured here.

Every process started here ends when its standard input does, so also when this program is killed.
(After a kill, a directory with a key remains, which nobody trusts.)

Usage: ``python -m benchmarks.hold [--connections N] [--processes N] [--candidate NAME]``
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.build import BuildError, build
from benchmarks.certificates import ALGORITHMS, CertificateError, make_certificates
from benchmarks.machine import facts
from benchmarks.measure import held_connections
from benchmarks.process import Load, MeasurementError, Server, end_when_told
from benchmarks.workloads import CANDIDATES, GREETING, SOURCES, TLS_CANDIDATES

__all__ = ["hold", "main"]

CONNECTIONS, PROCESSES = 200_000, 11

#: Connections that one load generator opens at a time: enough to keep two cores busy, and too few
#: to overflow a backlog of 1,024.
IN_FLIGHT = 64

#: Longest time for opening, and for all answers, in seconds.
OPENING, ANSWERING = 600, 120

#: Seconds that server processes get to settle before their memory is read.
SETTLE = 1.0

#: The candidates to choose from.
SERVING = ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")

#: The most descriptors that one process is expected to use.
_ROOM = held_connections(10_000_000)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hold",
        description="Open connections to several server processes, measure their memory, and "
        "have each connection answer once.",
    )
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="(%(default)s)")
    parser.add_argument(
        "--processes",
        type=int,
        default=PROCESSES,
        help="servers, and as many clients (%(default)s)",
    )
    parser.add_argument(
        "--candidate",
        default="fastlisten",
        choices=SERVING,
        help="the server (%(default)s)",
    )
    parser.add_argument("--tls", default="", choices=["", *ALGORITHMS], help="key of the servers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args(words)
    if given.processes < 1 or given.connections < given.processes:
        parser.error("there must be at least one process, and a connection for each")
    share = -(-given.connections // given.processes)
    if share > _ROOM:
        needed = -(-given.connections // _ROOM)
        parser.error(
            f"a process has room for {_ROOM:,} connections here (its limit of descriptors), not "
            f"for {share:,}: --processes {needed}"
        )
    return given


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _meminfo(name: str) -> int:
    """Return a line of /proc/meminfo in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise MeasurementError(f"/proc/meminfo has no {name}")


def _memory(servers: Sequence[Server]) -> dict[str, int]:
    """Return the total memory of the servers, and the slab memory of the whole machine."""
    weights = [server.memory() for server in servers]
    return {
        "user": sum(weight["Private_Dirty"] for weight in weights),
        "pss": sum(weight["Pss"] for weight in weights),
        "slab": _meminfo("Slab"),
    }


def _command(candidate: str, tls: str, directory: Path) -> list[str]:
    command = list(CANDIDATES[candidate])
    if tls:
        command = list(TLS_CANDIDATES.get(candidate, command))
        command += make_certificates(directory)[tls].arguments
    return [*command, "--greeting", GREETING]


def hold(connections: int, processes: int, candidate: str, tls: str = "") -> dict[str, Any]:
    """Open and hold the connections, and have each answer once.

    Args:
        connections: the total; if it does not divide evenly, the first processes get one more each.
        processes: number of server processes, and of client processes.
        candidate: name of the candidate that serves.
        tls: kind of the certificate, or empty for plain connections.

    Returns:
        The result: times in seconds, memory in bytes, number of processes.

    Raises:
        MeasurementError: a connection could not be opened or did not answer.
        CertificateError: the certificate could not be made.
        BuildError: a program could not be compiled.
    """
    no_tls = build()
    if tls and no_tls:
        raise BuildError(no_tls)
    shares = [
        connections // processes + (index < connections % processes) for index in range(processes)
    ]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = _command(candidate, tls, directory)
        servers = [stack.enter_context(Server(command, None)) for _ in shares]
        _say(f"servers: {' '.join(str(server.pid) for server in servers)}")
        time.sleep(SETTLE)
        before = _memory(servers)

        begun = time.monotonic()
        options = ["--greeting", "--sources", str(SOURCES), "--in-flight", str(IN_FLIGHT)]
        options += ["--duration", str(OPENING), "--grace", str(ANSWERING)]
        options += ["--tls"] if tls else []
        loads = [
            stack.enter_context(
                Load("hold", server.port, None, [*options, "--connections", str(share)])
            )
            for server, share in zip(servers, shares, strict=True)
        ]
        opened = sum(load.event("open", OPENING + ANSWERING)["open"] for load in loads)
        opening = time.monotonic() - begun
        _say(f"opened {opened:,} in {opening:.1f} s")
        time.sleep(SETTLE)
        resting = _memory(servers)

        begun = time.monotonic()
        for load in loads:
            load.tell("ping")
        answered = sum(load.event("ping", 2 * ANSWERING)["operations"] for load in loads)
        answering = time.monotonic() - begun
        _say(f"answered {answered:,} in {answering:.1f} s")
        time.sleep(SETTLE)
        after = _memory(servers)
        pids = [child.pid for child in (*servers, *loads)]
    if not opened == answered == connections:
        raise MeasurementError(f"{opened:,} of {connections:,} opened, {answered:,} answered")
    return {
        "candidate": candidate,
        "tls": tls,
        "connections": connections,
        "processes": processes,
        "pids": pids,
        "opening": opening,
        "answered": answered,
        "answering": answering,
        "before": before,
        "resting": resting,
        "after": after,
    }


def _text(found: dict[str, Any]) -> str:
    """Return the result as text."""
    count = found["connections"]
    before, resting, after = found["before"], found["resting"], found["after"]

    def grown(kind: str, now: dict[str, int], ends: int = 1) -> str:
        more = now[kind] - before[kind]
        return f"{more / 2**20:,.0f} MiB, {more / count / ends:,.0f} B per connection"

    lines = [
        ("connections", f"{count:,} to {found['processes']} processes, each with its own port"),
        ("served by", found["candidate"] + (f", TLS {found['tls']}" if found["tls"] else "")),
        ("opened in", f"{found['opening']:.1f} s, {count / found['opening']:,.0f} per second"),
        ("answered", f"all {found['answered']:,}, in {found['answering']:.1f} s"),
        ("user memory", f"{grown('user', resting)} (growth of Private_Dirty)"),
        ("after answers", grown("user", after)),
        ("whole servers", f"{after['pss'] / 2**20:,.0f} MiB (Pss)"),
        (
            "kernel memory",
            f"{grown('slab', resting, 2)} and end (growth of Slab, clients included)",
        ),
        ("measured", ", ".join(f"{key} {value}" for key, value in facts().items())),
    ]
    return "\n".join(f"{name:14} {value}" for name, value in lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run and report; return the exit status: 0 if every connection answered, else 1."""
    given = _arguments(words)
    try:
        found = hold(given.connections, given.processes, given.candidate, given.tls)
    except (BuildError, CertificateError, MeasurementError, OSError) as error:
        _say(str(error))
        return 1
    print(json.dumps(found) if given.json else _text(found))
    return 0


if __name__ == "__main__":
    end_when_told()
    sys.exit(main())
