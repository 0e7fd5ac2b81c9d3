"""Waiting for what happens in its own time: for a named condition, and never for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["PATIENCE", "soon", "until"]

#: Seconds, longer than anything in the tests takes on a busy machine; only failures wait for it.
PATIENCE = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, or fail naming it."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.005)


async def soon(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition while the loop runs, or fail naming it."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        await asyncio.sleep(0.002)
