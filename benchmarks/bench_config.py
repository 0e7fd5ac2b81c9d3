"""Benchmarks of the configuration: loading, scanning for lines and showing 10,000 listeners.

Rules of this file: one configuration, with listeners as a large site has them. Parsing with tomli
alone is measured too, because loading cannot be faster than that. The number of rounds is fixed.
Not part of the test suite:

    python -m pytest benchmarks/bench_config.py --benchmark-enable
    python -m benchmarks.bench_config                                   # medians alone
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import tomli

from fastlisten.config import Config, loads
from fastlisten.config.export import to_plain, to_toml
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.toml_lines import Lines

LISTENERS = 10_000
ROUNDS = 7

#: Seconds that loading and resolving may take: the goal, and the stretch goal.
GOAL, STRETCH = 2.0, 0.5


def large(listeners: int = LISTENERS) -> str:
    """Return a configuration with this many listeners, on addresses that do not overlap."""
    head = "[server]\nhostname = 'mx.example.org'\n[server.socket]\nbacklog = 1024\n"
    return head + "".join(
        f'\n[server.listener."customer-{number}"]\n'
        f'bind = ["127.{number >> 16}.{number >> 8 & 255}.{number & 255}:2525"]\n'
        'protocol = "smtp"\n'
        "max-connections = 1000\n"
        "socket.backlog = 2048\n"
        for number in range(listeners)
    )


TEXT = large()


def load() -> Config:
    return loads(TEXT)


def fail() -> int:
    """Load a file in which every listener is wrong, so that all lines are needed."""
    try:
        loads(TEXT.replace("socket.backlog", "socket.baklog"))
    except ConfigurationError as error:
        return len(error.problems)
    return 0


def cases() -> dict[str, Callable[[], Any]]:
    """Return the functions to measure, by name."""
    config = load()
    return {
        "tomli alone": lambda: tomli.loads(TEXT),
        "load and resolve": load,
        "what is unavailable": lambda: find_unavailable(config),
        "scan for lines": lambda: Lines(TEXT),
        "report 10,000 mistakes": fail,
        "show --toml": lambda: to_toml(config),
        "show --json": lambda: json.dump(to_plain(config), io.StringIO(), indent=2),
    }


@pytest.mark.benchmark(group="10,000 listeners")
@pytest.mark.parametrize("name", list(cases()))
def test_ten_thousand_listeners(benchmark: Any, name: str) -> None:
    assert fail() == LISTENERS
    benchmark.pedantic(cases()[name], rounds=ROUNDS, iterations=1, warmup_rounds=1)


def main() -> None:
    """Print the median of each case."""
    print(f"{LISTENERS:,} listeners, {len(TEXT):,} bytes, {ROUNDS} rounds; goal {GOAL} s")
    for name, call in cases().items():
        times = []
        for _ in range(ROUNDS + 1):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        # The first round only fills caches.
        print(f"{name:<26} {statistics.median(times[1:]):8.3f} s")


if __name__ == "__main__":
    main()
