"""One sample: one candidate doing one workload once.

Rules of this file: every sample has a new server process, so that no result depends on the memory
layout of a single process. The same work is done as a warm-up before counting begins. Anything that
the load generator reports as failed, or an answer of the wrong length, is an error, not a fast
operation.
"""

from __future__ import annotations

import math
import os
import resource
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.certificates import Certificate
from benchmarks.deliveries import await_files, count_files, data_directory
from benchmarks.process import Load, MeasurementError, Server, Usage
from benchmarks.smtp_source import send
from benchmarks.start import time_to_last_greeting
from benchmarks.syscalls import count_options
from benchmarks.workloads import CANDIDATES, GREETING, HELD, SOURCES, TLS_CANDIDATES, Workload
from benchmarks.wrk import ask

__all__ = [
    "Plan",
    "Sample",
    "cores",
    "held_connections",
    "measure",
    "negotiated",
    "processor_time",
]

#: Descriptors that a process needs besides the connections it holds.
SPARE_DESCRIPTORS = 100

#: The warm-up of an echo server: few connections, few messages.
AGEING = ("--connections", "20", "--count", "200", "--duration", "10")

#: Messages that smtp-source sends as a warm-up. From their time follows how many are measured.
SOURCE_WARM_UP = 500

#: A server that waited for its core for this share of the time was disturbed by other processes.
DISTURBED = 0.10


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much and where samples are measured.

    Attributes:
        seconds: length of the measured part of a sample.
        warm_up: length of the same work before it, in seconds.
        held: connections held to measure the memory of one.
        server_core: the core of the server.
        client_core: the core of the load generator.
        spin: the load generator polls instead of sleeping.
        mail: share of the messages and accounts of a workload that there are.
    """

    seconds: float
    warm_up: float
    held: int
    server_core: int
    client_core: int
    spin: bool = False
    mail: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one measurement.

    Attributes:
        value: µs of processor time per operation, bytes per connection, ms of lag, calls per
            connection, or seconds of a start.
        user: the part of `value` spent in user mode (for cpu samples).
        rate: operations per second at the load generator, or 0 if there are none.
        busy: share of the time that the server was on its core.
        disturbed: other processes used the server's core.
        detail: everything else that was measured, for the JSON; the report also shows "p50" and
            "max" of lags and what TLS negotiated ("tls").
    """

    value: float
    user: float = 0.0
    rate: float = 0.0
    busy: float = 0.0
    disturbed: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the sample as values that JSON can hold."""
        return asdict(self)


def cores() -> tuple[int, int]:
    """Return the cores of server and load generator.

    Raises:
        MeasurementError: this process may use only one core.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise MeasurementError("two cores are needed: one for the server, one for the clients")
    return usable[0], usable[1]


def held_connections(wanted: int = HELD) -> int:
    """Return how many connections a process may hold under the descriptor limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - SPARE_DESCRIPTORS)


def measure(
    workload: Workload, candidate: str, plan: Plan, certificates: Mapping[str, Certificate]
) -> Sample:
    """Start the candidate, run the workload, return the sample.

    Args:
        workload: the work.
        candidate: name of the candidate that does it.
        plan: how long, how much and where.
        certificates: certificates by kind; must include the workload's.

    Raises:
        MeasurementError: the candidate did not serve correctly.
    """
    if workload.kind == "start":
        return Sample(value=time_to_last_greeting(candidate, plan.server_core))
    command = list(CANDIDATES[candidate])
    if workload.tls:
        command = (
            list(TLS_CANDIDATES.get(candidate, command)) + certificates[workload.tls].arguments
        )
    command += workload.serve
    if workload.greets:
        command += ["--greeting", GREETING]
    if workload.kind == "count":
        calls = count_options(command, workload, plan.server_core, plan.client_core)
        return Sample(value=calls.options, detail={"calls": calls.all})
    with ExitStack() as stack:
        directory = ""
        if workload.data:
            directory = stack.enter_context(data_directory(workload.data))
            command += ["--data", directory]
        server = stack.enter_context(Server(command, plan.server_core))
        if "--limit" in command:
            holder = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            stack.enter_context(holder)
            if not holder.recv(1024).startswith(GREETING.encode()):
                raise MeasurementError(f"{candidate} did not greet its first client")
        if workload.kind == "memory":
            return _memory(workload, server, plan)
        if workload.kind == "lag":
            return _lag(workload, server, plan)
        if workload.mode == "smtp-source":
            return _source(workload, server, plan)
        if workload.mode == "wrk":
            return _requests(workload, server, plan)
        received = workload.refused if "--limit" in command else workload.received
        there = count_files(directory) if directory else 0
        sample = processor_time(workload, server, plan, received, directory)
        if directory:
            stored = sample.detail["stored"] = count_files(directory) - there
            if stored < sample.detail["operations"]:
                raise MeasurementError(f"only {stored} messages have been stored")
        return sample


def _options(workload: Workload, plan: Plan, seconds: float) -> list[str]:
    return [
        *workload.options,
        *_tls(workload),
        *("--steps", "--sources", str(SOURCES)),
        *("--duration", str(seconds), "--warm-up", str(plan.warm_up)),
        *(["--spin"] if plan.spin else []),
    ]


def _tls(workload: Workload) -> list[str]:
    return ["--tls"] if workload.tls else []


def negotiated(result: dict[str, Any]) -> dict[str, Any]:
    """Return what TLS negotiated, for `Sample.detail`; empty for plain connections."""
    tls = result.get("tls")
    if tls is None:
        return {}
    if tls["resumed"]:
        raise MeasurementError(f"{tls['resumed']} of {tls['handshakes']} sessions were resumed")
    return {"tls": tls["negotiated"], "tls library": tls["library"]}


def _check(result: dict[str, Any], received: int) -> int:
    """Return the number of operations, after checking that each received this many bytes."""
    operations = int(result["operations"])
    if operations == 0:
        raise MeasurementError("no operation was finished")
    if received and result["bytes"] != operations * received:
        raise MeasurementError(
            f"{result['bytes'] / operations:.2f} bytes were received per operation, not {received}"
        )
    return operations


def _disturbed(used: Usage) -> bool:
    return used.delay > DISTURBED * used.cpu


def _age(workload: Workload, server: Server, plan: Plan) -> None:
    """Open, use and close some connections, as in any server that has been running for a while.

    glibc maps and unmaps large blocks one by one until the first of them has been freed; uvloop's
    buffer of a TLS connection is such a block. A server that has never closed a connection would be
    measured in that state, at half its speed.
    """
    options = [*workload.options, *_tls(workload), "--sources", str(SOURCES)]
    with Load(workload.mode, server.port, plan.client_core, [*options, *AGEING]) as load:
        load.event("done")
    server.settled()


def processor_time(
    workload: Workload, server: Server, plan: Plan, received: int = 0, directory: str = ""
) -> Sample:
    """Return what an operation costs the server.

    Args:
        workload: the work.
        server: who does it.
        plan: how long.
        received: bytes that the client must receive per operation; 0 disables the check.
        directory: where the operations deliver to, if they do.

    Raises:
        MeasurementError: something failed.
    """
    if workload.mode == "echo":
        _age(workload, server, plan)
    options = _options(workload, plan, plan.seconds)
    with Load(workload.mode, server.port, plan.client_core, options) as load:
        load.event("ready")
        before = server.settled()
        there = count_files(directory) if directory else 0
        load.tell("go")
        result = load.event("done")
        if directory:
            await_files(directory, there + int(result["operations"]))
        used = server.settled() - before
    operations = _check(result, received)
    value = used.cpu / operations * 1e6
    # utime and stime are sampled by the kernel, so they are used for the split only.
    after_split = used.user / used.cpu if used.cpu else 0.0
    return Sample(
        value=value,
        user=value * min(1.0, after_split),
        rate=result["rate"],
        busy=used.cpu / result["seconds"],
        disturbed=_disturbed(used),
        detail={
            "operations": operations,
            "latency_us": result["latency_us"],
            "delay": used.delay,
            **negotiated(result),
        },
    )


def _source(workload: Workload, server: Server, plan: Plan) -> Sample:
    """Measure with smtp-source, which is told a number of messages, not a time."""
    core, options = plan.client_core, workload.options
    took = send(server.port, core, SOURCE_WARM_UP, options)
    messages = max(SOURCE_WARM_UP, round(SOURCE_WARM_UP * plan.seconds / took))
    before = server.settled()
    took = send(server.port, core, messages, options)
    used = server.settled() - before
    value = used.cpu / messages * 1e6
    return Sample(
        value=value,
        user=value * min(1.0, used.user / used.cpu),
        rate=messages / took,
        busy=used.cpu / took,
        disturbed=_disturbed(used),
        detail={"operations": messages, "delay": used.delay},
    )


def _requests(workload: Workload, server: Server, plan: Plan) -> Sample:
    """Measure with wrk, which is told a time; the warm-up is a run of its own."""
    ask(server.port, plan.client_core, plan.warm_up, workload.options)
    before = server.settled()
    requests, took = ask(server.port, plan.client_core, plan.seconds, workload.options)
    used = server.settled() - before
    value = used.cpu / requests * 1e6
    return Sample(
        value=value,
        user=value * min(1.0, used.user / used.cpu),
        rate=requests / took,
        busy=used.cpu / took,
        disturbed=_disturbed(used),
        detail={"operations": requests, "delay": used.delay},
    )


def _memory(workload: Workload, server: Server, plan: Plan) -> Sample:
    sources = [*_tls(workload), "--sources", str(SOURCES)]
    # Few at once, so that they leave no free heap for the held connections to fill.
    warm_up = ["--in-flight", "8", "--count", "500", *sources]
    # What only the first connections cost (imports, arenas, buffers) is not counted.
    with Load("silent", server.port, plan.client_core, warm_up) as load:
        load.event("done")
    server.settled()
    before = server.memory()
    options = [*workload.options, *sources, "--connections", str(plan.held)]
    options += ["--duration", "150", "--grace", "20"]
    with Load(workload.mode, server.port, plan.client_core, options) as load:
        opened = load.event("open")
        server.settled()
        after = server.memory()
        # A connection counts as held if it still answers: each sends a line and gets it back.
        load.tell("ping")
        answered = load.event("ping")
    if not opened["open"] == answered["operations"] == plan.held:
        raise MeasurementError(f"{opened['open']} opened, {answered['operations']} answered")
    if after["AnonHugePages"] != before["AnonHugePages"]:
        raise MeasurementError("the number of huge pages changed, so the difference would be wrong")
    grown = {key: (after[key] - before[key]) / plan.held for key in ("Private_Dirty", "Pss")}
    return Sample(
        value=grown["Private_Dirty"],
        detail={"held": plan.held, **grown, **negotiated(answered)},
    )


def _lag(workload: Workload, server: Server, plan: Plan) -> Sample:
    if workload.mode == "echo":
        _age(workload, server, plan)
    server.tell("lags")
    server.read_json()
    # There are a hundred ticks a second; with fewer than a few hundred, a p99 is mere luck.
    options = _options(workload, plan, 2 * plan.seconds)
    with Load(workload.mode, server.port, plan.client_core, options) as load:
        load.event("ready")
        before = server.usage()
        server.tell("lags")
        server.read_json()
        load.tell("go")
        result = load.event("done")
        server.tell("lags")
        lags: list[float] = sorted(server.read_json())
        used = server.usage() - before
    _check(result, workload.received)
    if not lags:
        raise MeasurementError("the timer never ran")
    p99 = lags[math.ceil(0.99 * len(lags)) - 1]
    return Sample(
        value=p99 * 1e3,
        rate=result["rate"],
        busy=used.cpu / result["seconds"],
        disturbed=_disturbed(used),
        detail={"ticks": len(lags), "p50": lags[len(lags) // 2] * 1e3, "max": lags[-1] * 1e3},
    )
