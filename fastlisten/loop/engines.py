"""The engine of each event loop: created with the loop's first server, closed with its last.

Rules of this file: it finds and creates engines, and does not care what they serve.
"""

from __future__ import annotations

import asyncio
import weakref

from fastlisten._core import Engine
from fastlisten.loop.log_records import log_records

__all__ = ["engine_for", "existing_engine"]

#: Engines by the id() of their loop. An engine is kept alive by its loop (as a reader callback) and
#: by its acceptors; when both are gone it closes itself.
_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()


def engine_for(loop: asyncio.AbstractEventLoop) -> Engine:
    """Return the engine of a loop; create one if there is none.

    Args:
        loop: a uvloop loop or an asyncio selector loop.

    Raises:
        OSError: descriptors or memory ran out.
    """
    engine = existing_engine(loop)
    if engine is None:
        engine = Engine(loop)
        engine.sink = log_records
        _engines[id(loop)] = engine
    return engine


def existing_engine(loop: asyncio.AbstractEventLoop) -> Engine | None:
    """Return the engine of a loop, None if it has none or has closed it."""
    engine = _engines.get(id(loop))
    if engine is None or engine.closed or engine.loop is not loop:
        return None
    return engine
