"""Fixtures that serve the smtp handler; a test file binds them to names of its own.

served, plain = smtp_fixtures.on_all_transports, smtp_fixtures.as_in_production
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from support.smtp_harness import SERVERS, Served, serve

__all__ = ["as_in_production", "on_all_transports"]


@pytest.fixture(params=SERVERS)
def on_all_transports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """The handler on each loop's own transports and on the native ones."""
    loop_factory, native = SERVERS[request.param]
    with serve(tmp_path, loop_factory=loop_factory, native=native) as server:
        yield server


@pytest.fixture
def as_in_production(tmp_path: Path) -> Iterator[Served]:
    """The handler on native transports and uvloop."""
    with serve(tmp_path, loop_factory=uvloop.new_event_loop) as server:
        yield server
