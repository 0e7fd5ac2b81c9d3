"""Waiting for conditions.

Rules of this file: nothing waits for a fixed time. A wait ends when its condition holds, and fails
after `PATIENCE`, naming what did not happen; only a bug or a hanging program gets that far.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

__all__ = ["PATIENCE", "eventually", "until"]

#: Seconds to wait before a test fails; longer than anything takes on a busy machine. Tests of
#: mutated code (tools/mutants) often wait in vain.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "30"))


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for a condition, or fail naming it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.002)


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for a condition while the loop runs, or fail naming it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        await asyncio.sleep(0.002)
