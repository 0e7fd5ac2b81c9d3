"""The benchmark of starts: it times the greeting of the listener that is set up last.

Rules of this file: few listeners, and no speed is judged.
"""

from __future__ import annotations

import os
import socket

import pytest
from support.benchmarks import BESIDE, ROOT

from fastlisten.config import loads

pytestmark = BESIDE

LISTENERS = 300


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_last_listener_is_timed() -> None:
    from benchmarks.start import address, configuration

    listeners = loads(configuration(LISTENERS, 2525)).listeners
    assert len(listeners) == LISTENERS
    (last,) = listeners[-1].bind
    assert (last.address, last.port) == (address(LISTENERS), 2525)


@pytest.mark.parametrize("candidate", ["fastlisten", "uvloop", "asyncio"])
def test_start_is_timed_and_leaves_nothing(candidate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import start
    from benchmarks.start import address, free_port, time_to_last_greeting

    port = free_port()
    monkeypatch.setattr(start, "free_port", lambda: port)
    core = min(os.sched_getaffinity(0))
    assert time_to_last_greeting(candidate, core, LISTENERS) > 0
    for number in (1, LISTENERS):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address(number), port), timeout=10)


def test_failed_start_is_an_error() -> None:
    from benchmarks.process import MeasurementError
    from benchmarks.start import time_to_last_greeting

    core = min(os.sched_getaffinity(0))
    with pytest.raises(MeasurementError, match=r"(?s)ended with 1: .*KeyError: 'nonsense'"):
        time_to_last_greeting("nonsense", core, 3)
