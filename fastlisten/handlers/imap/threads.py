"""What takes the processor for long runs in a thread of the loop, if there can be one.

Rules of this file: only work that changes nothing, because it may be done though it was refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from fastlisten.mail.store.interface import StoreUnavailableError

__all__ = ["in_thread"]

logger = logging.getLogger("fastlisten.mail")

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run something in a thread.

    Raises:
        StoreUnavailableError: no thread can be started now.
    """
    try:
        result = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError as error:
        logger.warning("a message is not parsed: %s", error)
        raise StoreUnavailableError("Too busy now") from error
    return await result
