"""Event loops: uvloop's or asyncio's, with server-side connections on the native core.

Rules of this file: creating and running a loop. The methods that differ from the base class are in
server_methods.py.

A loop belongs to the process and the thread that created it. A forked child cannot use it: the
child's copies of the connections are closed, the parent's stay open, and the child may create a
loop of its own.
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

    Pass it as `loop_factory` to asyncio.Runner, or as the loop setting of a server. Any asyncio
    program runs on such a loop unchanged.

    Args:
        use_uvloop: build on uvloop (True) or on asyncio's selector loop (False). None: uvloop if
            it is installed.

    Raises:
        ImportError: `use_uvloop` is true and uvloop is not installed.
        OSError: descriptors or memory ran out.
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
    """Run a coroutine as asyncio.run does, on a loop of `new_event_loop`.

    Args:
        main: the coroutine.
        debug: the loop's debug mode; None: as PYTHONASYNCIODEBUG says.

    Returns:
        What `main` returns.

    Raises:
        RuntimeError: this thread is already running a loop.
        ValueError: `main` is not a coroutine.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("fastlisten.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
