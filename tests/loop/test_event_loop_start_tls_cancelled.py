"""`StreamWriter.start_tls` that is cancelled: the connection ends; nothing is said in clear."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from support.loop_worlds import play_on, serving
from support.loops import OUR_LOOPS, LoopFactory
from support.raw_client import RawClient
from support.tls_contexts import server_context
from support.world import World

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.fixture(params=OUR_LOOPS)
def ours(request: pytest.FixtureRequest) -> LoopFactory:
    """Return what makes a loop of ours."""
    return OUR_LOOPS[request.param]


def test_connection_ends(ours: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("command", await reader.readline())
            writer.write(b"220 go ahead\r\n")
            starting = asyncio.ensure_future(writer.start_tls(server_context()))
            await world.until("cancel")
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            world.note("over")

        async with serving(handler) as address:
            client = await RawClient.connect(address)
            await client.send(b"STARTTLS\r\n")
            assert await client.receive(14) == b"220 go ahead\r\n"
            world.note("cancel")
            await world.until("over")
            world.note("client", *await client.rest())
            client.close()
        gc.collect()

    assert ("client", b"", "eof") in play_on(script, ours)
