"""Micro-benchmarks of the core's pieces: option batches and places.

Rules of this file: each piece is one call, measured beside plain Python or an empty call for
comparison. The number of rounds is fixed, so that all runs do the same work. Not part of the test
suite:

    python -m pytest benchmarks/bench_core.py --benchmark-enable
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastlisten._arena import Arena, Places
from fastlisten._core import OptionBatch

#: Options of one listening socket as a full configuration has them, in the form of setsockopt.
OPTIONS: tuple[tuple[int, int, bytes], ...] = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, struct.pack("i", 1)),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 262_144)),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, struct.pack("i", 262_144)),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1)),
    (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 64)),
    (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 0x10)),
)

#: Calls per round, and rounds. A round takes milliseconds, so the timer's own cost does not matter.
ITERATIONS, ROUNDS = 10_000, 50


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        yield sock


def measure(benchmark: Any, call: Callable[[], object]) -> None:
    """Run a call in fixed rounds."""
    benchmark.pedantic(call, rounds=ROUNDS, iterations=ITERATIONS, warmup_rounds=2)


@pytest.mark.benchmark(group="options of one socket")
def test_options_by_batch(benchmark: Any, listening: socket.socket) -> None:
    batch, fd = OptionBatch(OPTIONS), listening.fileno()
    assert batch.apply(fd) == ()
    measure(benchmark, lambda: batch.apply(fd))


@pytest.mark.benchmark(group="options of one socket")
def test_options_by_python(benchmark: Any, listening: socket.socket) -> None:
    def apply() -> None:
        for level, name, value in OPTIONS:
            listening.setsockopt(level, name, value)

    measure(benchmark, apply)


@pytest.mark.benchmark(group="options of one socket")
def test_no_options_by_batch(benchmark: Any, listening: socket.socket) -> None:
    """Measure the call alone: the cost for an accepted socket that inherits all options."""
    batch, fd = OptionBatch(()), listening.fileno()
    measure(benchmark, lambda: batch.apply(fd))


def places(members: int, limit: int) -> Places:
    """Return the places of one listener, as seen by the first of several processes."""
    arena = Arena(1, members)
    found = arena.places(0, arena.join())
    found.limit = limit
    return found


@pytest.mark.benchmark(group="a place")
@pytest.mark.parametrize("members", [1, 16, 64, 256])
def test_place_taken_and_given(benchmark: Any, members: int) -> None:
    """Measure both calls together; the sum is over one counter per process."""
    found = places(members, 8192)

    def take_and_give() -> None:
        found.take()
        found.give()

    measure(benchmark, take_and_give)
    assert found.count == 0


@pytest.mark.benchmark(group="a place")
@pytest.mark.parametrize("members", [1, 16, 64, 256])
def test_place_refused(benchmark: Any, members: int) -> None:
    """Measure a refused place: the limit is reached and no other process is racing for one."""
    found = places(members, 1)
    assert found.take()
    measure(benchmark, found.take)
    assert found.count == 1
