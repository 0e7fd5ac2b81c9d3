"""Our loops compared with asyncio's: a script is run on both and must produce the same log.

Rules of this file: as in support.world, except that a script uses the methods of its loop, and the
worlds differ in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastlisten.loop.engines import existing_engine
from support.loops import LoopFactory
from support.tls_contexts import server_context
from support.world import Note, Script, World, play


def play_on(script: Script, loop_factory: LoopFactory, *, debug: bool | None = None) -> list[Note]:
    """Run a script whose `World.create` is the loop's own create_server."""

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
    """Run a script on asyncio's loop and on one of ours; check that the logs agree; return it."""
    expected = play_on(script, asyncio.SelectorEventLoop, debug=debug)
    assert expected, "a script that notes nothing proves nothing"
    found = play_on(script, loop_factory, debug=debug)
    assert found == expected
    return found


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Any]:
    """Serve a stream function; yield the address."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def upgrade(writer: asyncio.StreamWriter) -> None:
    """Reply to STARTTLS and begin TLS."""
    writer.write(b"220 go ahead\r\n")
    await writer.start_tls(server_context(), ssl_handshake_timeout=5)
