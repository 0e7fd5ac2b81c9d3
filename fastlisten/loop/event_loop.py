"""Event loops: uvloop's or asyncio's, with server-side connections on the native core.

Rules of this file: making and running a loop; what the loops do differently from their base is in
server_methods.py.

A loop belongs to the process and the thread that made it. In a forked child it is dead: the child's
copies of its connections are closed, the parent's live on, and the child may make a new loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastlisten.loop.server_methods import ServerMethods

__all__ = ["AsyncioLoop", "new_event_loop", "run"]

_T = TypeVar("_T")


class AsyncioLoop(ServerMethods, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """asyncio's selector loop with server-side connections on the core."""


def new_event_loop(use_uvloop: bool | None = None) -> asyncio.AbstractEventLoop:
    """Return a new event loop whose servers run on the native core.

    It is what a `loop_factory` of asyncio.Runner or the loop setting of a server wants; any asyncio
    program runs on it unchanged.

    Args:
        use_uvloop: build on uvloop (True) or on asyncio's selector loop (False). None: uvloop if
            it is installed.

    Raises:
        ImportError: uvloop is asked for and not installed.
        OSError: no descriptor or memory for a loop.
    """
    if use_uvloop is False:
        return AsyncioLoop()
    try:
        from fastlisten.loop.uvloop_loop import UvloopLoop
    except ImportError:
        if use_uvloop:
            raise
        return AsyncioLoop()
    return UvloopLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine on a new loop of ours, as asyncio.run does on its own.

    Args:
        main: the program.
        debug: the loop's debug mode; None: as the environment says (PYTHONASYNCIODEBUG).

    Returns:
        What `main` returns.

    Raises:
        RuntimeError: this thread runs a loop already.
        ValueError: not a coroutine.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("fastlisten.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
