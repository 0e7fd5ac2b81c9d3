"""SIGKILL at every system call of a change: what was told is so, and nothing is there twice.

Rules of this file: what happens and what must be true is in support/store_kills.py.
"""

from __future__ import annotations

import pytest
from support.killed_calls import killed_at_every_call

#: Scenarios, and fewer system calls than each makes.
SCENARIOS = {
    "Absorb": 40,
    "First": 60,
    "Store": 30,
    "Expunge": 30,
    "Append": 40,
    "Copy": 40,
    "Move": 30,
    "Create": 40,
    "Delete": 30,
    "Rename": 30,
    "NewAccount": 100,
    "Import": 100,
    "Lost": 60,
    "Rebuild": 60,
    "Restore": 60,
    "Deliver": 60,
}


#: Those that take longest: a whole index is made again after each kill.
LONG = ("First", "Lost", "NewAccount", "Import", "Rebuild", "Restore", "Deliver")


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(one, marks=(pytest.mark.soak, pytest.mark.timeout(300)) if one in LONG else ())
        for one in SCENARIOS
    ],
)
def test_killed_at_every_system_call(scenario: str) -> None:
    calls = killed_at_every_call(f"support.store_kills:{scenario}")
    assert calls > SCENARIOS[scenario]
