"""An endless stream of bytes, any part of which can be checked on arrival."""

from __future__ import annotations

import random

__all__ = ["stream"]

#: Every stream is a window of these bytes, which repeat with a period that no chunk size divides.
PERIOD = 65_521
NOISE = random.Random(42).randbytes(PERIOD) * 6


def stream(start: int, size: int) -> bytes:
    """Return bytes `start` to `start + size` of the endless stream; size up to 4 periods."""
    start %= PERIOD
    return NOISE[start : start + size]
