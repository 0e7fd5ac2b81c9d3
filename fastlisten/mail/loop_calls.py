"""Calls from threads to event loops.

Rules of this file: one function, for the threads that deliver mail and verify passwords.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["call_on"]


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call back on a loop, from any thread.

    Returns:
        False if the loop has been closed; nothing is called then.
    """
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
