"""Fixtures that all test files share: the event loops, and the check for leaked descriptors.

Rules of this file: fixtures only, none of them automatic, and the two modules that have to be
imported first. Helpers that are not fixtures are in ``support/``.
"""

from __future__ import annotations

# isort: off
from support.isolation import pytest_sessionfinish, pytest_terminal_summary, pytest_unconfigure  # noqa: F401

# isort: on
import gc
from collections.abc import Iterator

import pytest
import uvloop
from support import hypothesis_profiles  # noqa: F401  (sets the profile of property-based tests)
from support.kernel import open_descriptors
from support.loops import LOOPS, OUR_LOOPS, LoopFactory

pytest.register_assert_rewrite(
    "support.imap_sync",
    "support.real_server",
    "support.world",
    "support.loop_worlds",
    "support.tls_world",
    "support.tls_client",
    "support.tls_listener",
)

# With its first loop libuv opens a pipe for the whole process; no test must be blamed for it.
uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Return a factory of stock event loops: asyncio's selector loop, then uvloop's."""
    return LOOPS[request.param]


@pytest.fixture(params=OUR_LOOPS)
def our_loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Return a factory of fastlisten's own event loops, on asyncio's and then on uvloop's."""
    return OUR_LOOPS[request.param]


@pytest.fixture(scope="session")
def frozen_heap() -> None:
    """Hide imported modules from the garbage collector: a collection then takes 1 ms, not 30."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def descriptors_back(frozen_heap: None) -> Iterator[None]:
    """Fail a test that leaves more, fewer or other descriptors open than it found.

    Garbage is collected first: what only a reference cycle keeps alive is not leaked.
    """
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    after = open_descriptors()
    leaked = {fd: name for fd, name in after.items() if before.get(fd) != name}
    assert not leaked, f"left open: {leaked}"
    assert len(after) == len(before), f"closed what was not ours: {before.keys() - after.keys()}"
