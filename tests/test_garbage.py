"""The garbage collector is paused while a file is loaded and a server starts, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.config import listener_table

from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.garbage import collector_paused


@pytest.fixture
def collections() -> Iterator[list[str]]:
    """Return a list of the collector's actions, with a threshold that is soon reached."""
    seen: list[str] = []

    def see(phase: str, info: dict[str, int]) -> None:
        seen.append(phase)

    before = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    gc.callbacks.append(see)
    yield seen
    gc.callbacks.remove(see)
    gc.set_threshold(*before)


def allocate() -> None:
    """Allocate more containers than the threshold allows."""
    kept: list[list[int]] = [[] for _ in range(10_000)]
    del kept


def test_nothing_is_collected_while_paused(collections: list[str]) -> None:
    allocate()
    assert collections
    with collector_paused():
        collections.clear()
        allocate()
        assert collections == []
    allocate()
    assert collections


def test_loading_causes_few_collections(collections: list[str]) -> None:
    text = "".join(
        listener_table(f"it-{n}", f"bind = '127.0.0.{n}:0'\nmax-connections = {n}")
        for n in range(1, 200)
    )
    collections.clear()
    loads(text)
    # The end of the pause may cause one at once.
    assert len(collections) <= 4


def test_collector_is_on_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        loads("nonsense = ")
    assert gc.isenabled()


def test_collector_stays_off_if_it_was_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
