"""Our loops beside asyncio's: a script is played on both and must be told the same.

Rules of this file: as in helpers_connection; only that here a script uses the methods of its loop,
and which loop that is makes the difference.
"""

from __future__ import annotations

import asyncio
from functools import partial

from helpers_connection import LoopFactory, Note, Script, World, play

import fastlisten
from fastlisten.runtime.loop import existing_engine

#: Our loops by their base.
OURS: dict[str, LoopFactory] = {
    "asyncio": partial(fastlisten.new_event_loop, use_uvloop=False),
    "uvloop": partial(fastlisten.new_event_loop, use_uvloop=True),
}


def play_on(script: Script, loop_factory: LoopFactory, *, debug: bool | None = None) -> list[Note]:
    """Play a script whose `World.create` is the loop's own create_server."""

    async def watched(world: World) -> None:
        await script(world)
        await world.close()
        engine = existing_engine(world.loop)
        if engine is not None:
            census = engine.census()
            assert census["open"] == census["endpoints"] == census["accepted"] == 0, census

    return play(watched, loop_factory, native=False, debug=debug)


def same_on_asyncio(
    script: Script, loop_factory: LoopFactory, *, debug: bool | None = None
) -> list[Note]:
    """Play a script on asyncio's loop and on one of ours; the logs must agree. Return the log."""
    expected = play_on(script, asyncio.SelectorEventLoop, debug=debug)
    assert expected, "a script that notes nothing proves nothing"
    found = play_on(script, loop_factory, debug=debug)
    assert found == expected
    return found
