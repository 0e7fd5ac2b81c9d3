"""What several test files share: the axis of event loops, and the count of open descriptors.

Rules of this file: fixtures only, none of them automatic, and the two modules that have to be
imported first. Helpers that are not fixtures stand in ``helpers_*.py`` beside the tests that use
them.
"""

from __future__ import annotations

# isort: off
from isolation import pytest_sessionfinish, pytest_terminal_summary, pytest_unconfigure  # noqa: F401

# isort: on
import asyncio
import gc
import os
from collections.abc import Callable, Iterator

import hypothesis_profiles  # noqa: F401  (sets the profile of property-based tests)
import pytest
import uvloop

pytest.register_assert_rewrite(
    "helpers_clients",
    "helpers_connection",
    "helpers_event_loop",
    "helpers_tls",
    "helpers_tls_client",
    "helpers_tls_core",
)

#: Every test of the native core runs on each: the core nests in the loop, and loops differ.
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}

# libuv opens a pipe for the whole process with its first loop; no test shall count it as its own.
uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop: asyncio's selector loop, then uvloop's."""
    return LOOPS[request.param]


def open_descriptors() -> dict[int, str]:
    """Return the open descriptors of this process and what each refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the directory that was being listed
    return found


@pytest.fixture(scope="session")
def frozen_heap() -> None:
    """Take what is imported out of the collector's sight: a collection then costs 1 ms, not 30."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def descriptors_back(frozen_heap: None) -> Iterator[None]:
    """Fail a test that leaves more, fewer or other descriptors open than it found.

    Garbage is collected first: what only a cycle keeps is not leaked.
    """
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    after = open_descriptors()
    leaked = {fd: name for fd, name in after.items() if before.get(fd) != name}
    assert not leaked, f"left open: {leaked}"
    assert len(after) == len(before), f"closed what was not ours: {before.keys() - after.keys()}"
