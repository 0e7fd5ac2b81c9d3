"""What is done to a server of several workers, and what is counted.

Rules of this file: no process is pinned to a core, because where the kernel lets workers run is
part of what is measured. Each function does one thing to a server that has nothing else to do, and
leaves it without connections. Costs are those of all workers together.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.process import Load, MeasurementError
from benchmarks.worker_group import Activity, WorkerGroup, share
from benchmarks.workloads import SOURCES

__all__ = ["RING_PLACES", "SCENARIOS", "Plan", "Sample", "ring"]

#: Figures by name.
Sample: TypeAlias = Mapping[str, float]

_SOURCES = ("--sources", str(SOURCES))

#: Seconds within which a client must have been greeted while a worker is stopped.
PROMPT = 1.0

#: Places of the listener whose clients wait for one; the plan has the number of these clients.
RING_PLACES = 8

#: The longest wait for a place, in seconds.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.

    Attributes:
        arriving: long-lived connections that arrive one after the other.
        arrival_rate: how many of them a second.
        burst: connections that arrive at once while the former are held.
        steady_rate: short connections a second, few enough that workers sleep in between.
        seconds: length of each of the other measurements.
        ring: clients that get a place one after the other.
    """

    arriving: int = 1000
    arrival_rate: int = 200
    burst: int = 500
    steady_rate: int = 500
    seconds: float = 3.0
    ring: int = 200


def idle(group: WorkerGroup, plan: Plan) -> Sample:
    """Without any client: wake-ups and ms of processor time, per second, workers and parent."""
    group.settle()
    before, parent = group.activity(), group.parent_activity()
    begun = time.monotonic()
    time.sleep(plan.seconds)
    used = group.activity() - before
    parent = group.parent_activity() - parent
    took = time.monotonic() - begun
    return {
        "wake-ups": used.wake_ups / took,
        "cpu": used.cpu / took * 1e3,
        "parent wake-ups": parent.wake_ups / took,
        "parent cpu": parent.cpu / took * 1e3,
    }


def held(group: WorkerGroup, plan: Plan) -> Sample:
    """Long-lived connections arrive over time, then a burst of others on top of them."""
    limits = ["--duration", "300", "--greeting", "--tally", *_SOURCES]
    first = ["--connections", str(plan.arriving), "--rate", str(plan.arrival_rate)]
    second = ["--connections", str(plan.burst), "--in-flight", str(plan.burst)]
    with Load("hold", group.port, None, [*limits, *first]) as load:
        arrived = group.counts(load.event("open")["tally"])
        with Load("hold", group.port, None, [*limits, *second]) as load:
            more = group.counts(load.event("open")["tally"])
    group.settle()
    return {
        "arrived": share(arrived),
        "burst": share([one + other for one, other in zip(arrived, more, strict=True)]),
    }


def _short(group: WorkerGroup, options: list[str]) -> dict[str, float]:
    """Connections that are greeted and closed: their spread, their cost, their rate."""
    options = [*options, "--tally", "--steps", "--warm-up", "0.5", *_SOURCES]
    with Load("silent", group.port, None, options) as load:
        load.event("ready")
        group.settle()
        before = group.activity()
        load.tell("go")
        result = load.event("done")
        used = group.activity() - before
    operations = result["operations"]
    if not operations:
        raise MeasurementError("no connection was served")
    return {
        "share": share(group.counts(result["tally"])),
        "cpu": used.cpu / operations * 1e6,
        "wake-ups": used.wake_ups / operations,
        "rate": result["rate"],
    }


def storm(group: WorkerGroup, plan: Plan) -> Sample:
    """Short connections, as many as possible, 100 at a time."""
    return _short(group, ["--in-flight", "100", "--duration", str(plan.seconds)])


def steady(group: WorkerGroup, plan: Plan) -> Sample:
    """Short connections at a rate that leaves workers idle."""
    rate = ["--rate", str(plan.steady_rate), "--in-flight", str(plan.steady_rate)]
    return _short(group, [*rate, "--duration", str(plan.seconds)])


def stop(group: WorkerGroup, plan: Plan) -> Sample:
    """One worker is stopped (SIGSTOP) under a steady load: who is not greeted promptly?

    The one that served most of the clients just before is stopped, so that it matters.
    """
    options = ["--rate", str(plan.steady_rate), "--tally", *_SOURCES]
    with Load("silent", group.port, None, [*options, "--duration", "0.3"]) as load:
        counts = group.counts(load.event("done")["tally"])
    busiest = group.workers[counts.index(max(counts))]
    # Those that are never greeted must not take the slots of others.
    clients = int(plan.steady_rate * plan.seconds) + 1
    options += ["--duration", str(plan.seconds), "--in-flight", str(clients)]
    options += ["--late", str(PROMPT), "--grace", str(PROMPT), "--steps"]
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(Load("silent", group.port, None, options))
        load.event("ready")
        load.tell("go")
        time.sleep(plan.seconds / 4)
        stack.enter_context(group.stopped(busiest))
        result = load.read_json()
    errors = sum(result["errors"].values())
    group.settle()
    return {
        "clients": result["operations"] + errors,
        "not greeted": errors + result.get("late", 0),
        "longest": result["latency_us"]["max"] / 1e3,
    }


def ring(group: WorkerGroup, plan: Plan) -> Sample:
    """All places of a listener are taken, and clients wait: who wakes when one is given back?

    The group has `RING_PLACES` places, and its clients wait. One client after the other leaves, and
    the next one is greeted. At least two processes work for that, or one twice: the client that
    leaves wakes one, the place that it leaves wakes one. What workers do by themselves at the
    same time is taken off.
    """
    address = ("127.0.0.1", group.port)
    with contextlib.ExitStack() as stack:

        def client() -> socket.socket:
            return stack.enter_context(socket.create_connection(address, PATIENCE))

        guests = [client() for _ in range(RING_PLACES)]
        for guest in guests:
            _await_greeting(guest)
        queue = [client() for _ in range(plan.ring)]
        # Long enough that every worker has found the listener full and looked again for itself.
        time.sleep(0.5)
        begun = time.monotonic()
        before = group.activity()
        time.sleep(max(0.2, plan.seconds / 2))
        alone = group.activity() - before
        alone_for = time.monotonic() - begun
        if select.select(queue, [], [], 0)[0]:
            raise MeasurementError("more clients were served than the limit allows")
        begun = time.monotonic()
        before = group.activity()
        for guest, waiting in zip([*guests, *queue], queue, strict=False):
            guest.close()
            _await_greeting(waiting)
        used = group.activity() - before
        took = time.monotonic() - begun
    group.settle()
    own = Activity(alone.cpu * took / alone_for, round(alone.wake_ups * took / alone_for))
    return {
        "wake-ups": (used - own).wake_ups / plan.ring,
        "cpu": (used - own).cpu / plan.ring * 1e6,
        "alone": alone.wake_ups / alone_for,
        "took": took / plan.ring * 1e3,
    }


def _await_greeting(client: socket.socket) -> None:
    try:
        if client.recv(1024).startswith(b"220 "):
            return
    except TimeoutError:
        pass
    raise MeasurementError("a client was not greeted in time")


#: In the order in which they are done to a server. `ring` needs a server of its own.
SCENARIOS: Mapping[str, Callable[[WorkerGroup, Plan], Sample]] = {
    "idle": idle,
    "held": held,
    "storm": storm,
    "steady": steady,
    "stop": stop,
}
