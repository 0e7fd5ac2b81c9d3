"""Hold a very large number of connections and use each once: ``python -m benchmarks.hold``.

Rules of this file: one run, not a comparison, and no process is pinned to a core. It reports memory
and whether every connection answered. With ``--workers``, the workers of one server share a port
and a limit (`hold_workers.py`). Else each server process has its own port and its own load
generator, so that all have equal shares, whatever the candidate.

Every process started here ends when its standard input does, so also when this program is killed.
(After a kill, a directory with a key or a configuration remains, which nobody trusts.)

Usage: ``python -m benchmarks.hold [--connections N] [--processes N | --workers N] [OPTION]...``
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
from benchmarks.held_clients import meminfo, ping, say, shares_of
from benchmarks.hold_workers import ROOM, WORKER_CANDIDATES, hold_workers
from benchmarks.machine import facts
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
        help=f"servers, each on a port of its own, and as many clients ({PROCESSES})",
    )
    parser.add_argument(
        "--workers", type=int, help="instead: workers of one server, which share a port"
    )
    parser.add_argument(
        "--descriptors", type=int, default=0, help="most open files of each worker (as here)"
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
    if given.workers is not None:
        _check_workers(parser, given)
        return given
    if given.descriptors:
        parser.error("--descriptors is for --workers")
    given.processes = PROCESSES if given.processes is None else given.processes
    if given.processes < 1 or given.connections < given.processes:
        parser.error("there must be at least one process, and a connection for each")
    share = -(-given.connections // given.processes)
    if share > ROOM:
        needed = -(-given.connections // ROOM)
        parser.error(
            f"a process has room for {ROOM:,} connections here (its limit of descriptors), not "
            f"for {share:,}: --processes {needed}"
        )
    return given


def _check_workers(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if given.processes is not None or given.tls:
        parser.error("--workers is without --processes and --tls")
    if given.candidate not in WORKER_CANDIDATES:
        parser.error(f"--workers is for the candidates {', '.join(WORKER_CANDIDATES)}")
    if given.candidate == "uvloop" and given.descriptors:
        parser.error("--descriptors is for fastlisten")
    if given.workers < 2 or given.connections < given.workers:
        parser.error("there must be at least two workers, and a connection for each")
    room = min(ROOM, given.descriptors or ROOM)
    if given.connections > given.workers * room:
        needed = -(-given.connections // room)
        parser.error(f"a worker has room for {room:,} connections here: --workers {needed}")


def _memory(servers: Sequence[Server]) -> dict[str, int]:
    """Return the total memory of the servers, and the slab memory of the whole machine."""
    weights = [server.memory() for server in servers]
    return {
        "user": sum(weight["Private_Dirty"] for weight in weights),
        "pss": sum(weight["Pss"] for weight in weights),
        "slab": meminfo("Slab"),
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
    shares = shares_of(connections, processes)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = _command(candidate, tls, directory)
        servers = [stack.enter_context(Server(command, None)) for _ in shares]
        say(f"servers: {' '.join(str(server.pid) for server in servers)}")
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
        say(f"opened {opened:,} in {opening:.1f} s")
        time.sleep(SETTLE)
        resting = _memory(servers)

        answered, answering = ping(loads, 2 * ANSWERING)
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
        ("connections", f"{count:,} to {_servers(found)}"),
        ("served by", found["candidate"] + (f", TLS {found['tls']}" if found["tls"] else "")),
        ("opened in", f"{found['opening']:.1f} s, {count / found['opening']:,.0f} per second"),
        ("answered", f"all {found['answered']:,}, in {found['answering']:.1f} s"),
        ("user memory", f"{grown('user', resting)} (growth of Private_Dirty)"),
        ("after answers", grown("user", after)),
        *_spread(found),
        ("whole servers", f"{after['pss'] / 2**20:,.0f} MiB (Pss)"),
        (
            "kernel memory",
            f"{grown('slab', resting, 2)} and end (growth of Slab, clients included)",
        ),
        ("measured", ", ".join(f"{key} {value}" for key, value in facts().items())),
    ]
    return "\n".join(f"{name:14} {value}" for name, value in lines)


def _servers(found: dict[str, Any]) -> str:
    if "workers" not in found:
        return f"{found['processes']} processes, each with its own port"
    limit = f" of {found['descriptors']:,} descriptors" if found["descriptors"] else ""
    return (
        f"one port of {found['workers']} workers{limit}, from {found['clients']} client processes"
    )


def _spread(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines that only a server with workers has."""
    if "workers" not in found:
        return []
    counts, parent = found["counts"], found["after"]
    most = f"{min(counts):,} to {max(counts):,}, at most {found['share']:.3f} times the share"
    return [
        ("of a worker", most),
        (
            "supervisor" if found["candidate"].startswith("fastlisten") else "their parent",
            f"{parent['parent'] / 2**20:,.0f} MiB (Private_Dirty), "
            f"{parent['parent pss'] / 2**20:,.0f} MiB (Pss)",
        ),
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Run and report; return the exit status: 0 if every connection answered, else 1."""
    given = _arguments(words)
    try:
        if given.workers is None:
            found = hold(given.connections, given.processes, given.candidate, given.tls)
        else:
            found = hold_workers(
                given.connections, given.workers, given.candidate, given.descriptors
            )
    except (BuildError, CertificateError, MeasurementError, OSError) as error:
        say(str(error))
        return 1
    print(json.dumps(found) if given.json else _text(found))
    return 0


if __name__ == "__main__":
    end_when_told()
    sys.exit(main())
