"""SIGKILL at every system call of a change: what was told is so, and nothing is there twice.

Rules of this file: what happens and what must be true is in support/store_kills.py.
"""

from __future__ import annotations

import pytest
from support.killed_calls import killed_at_every_call


@pytest.mark.parametrize(("scenario", "calls"), [("Absorb", 40), ("First", 60)])
def test_killed_at_every_system_call(scenario: str, calls: int) -> None:
    assert killed_at_every_call(f"support.store_kills:{scenario}") > calls
