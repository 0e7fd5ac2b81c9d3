"""The event loops that tests run on, and functions to run tests on them.

Rules of this file: a test uses these instead of creating a loop, wherever possible.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

import fastlisten
from support.waiting import PATIENCE

__all__ = ["LOOPS", "OUR_LOOPS", "Loop", "LoopFactory", "on_loops", "run", "run_virtually"]

_T = TypeVar("_T")

Loop = asyncio.AbstractEventLoop
LoopFactory = Callable[[], Loop]


#: Every test of the native core runs on each, because the core depends on the loop.
LOOPS: dict[str, LoopFactory] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


#: fastlisten's own loops, by the loop they are based on.
OUR_LOOPS: dict[str, LoopFactory] = {
    "asyncio": functools.partial(fastlisten.new_event_loop, use_uvloop=False),
    "uvloop": functools.partial(fastlisten.new_event_loop, use_uvloop=True),
}


def run(loop_factory: LoopFactory, main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run an async function on a new loop, bounded in time."""

    async def bounded() -> _T:
        async with asyncio.timeout(PATIENCE * 2):
            return await main()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(bounded())


def on_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on every event loop of the fixture `loop_factory`."""

    @functools.wraps(test)
    def run(loop_factory: LoopFactory, **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    # pytest takes the fixtures from the signature.
    own = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature([own, *wanted])  # type: ignore[attr-defined]
    return run


class _Skipping(selectors.DefaultSelector):
    """Does not wait, but adds up the time it would have waited."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen"
            self.skipped += max(0.0, timeout)
        return events


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return 1000.0 + self._skipping.skipped


def run_virtually(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on a loop where waiting takes no time; ``loop.time()`` is virtual."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
