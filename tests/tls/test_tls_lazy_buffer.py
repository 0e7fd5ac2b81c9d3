"""Buffered protocols over TLS that get bytes which were decrypted before the protocol existed.

Rules of this file: as in test_tls_transport. If a protocol is made at the first byte (`lazy`), the
first record is already decrypted and is handed over in pieces; asyncio, which makes protocols at
accept, is the reference for what they see.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_world import TlsBuffered, TlsRecorder, TlsWorld, on_all_ways, play_tls, same_tls
from support.world import Hook

from fastlisten.loop.engines import engine_for

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def lazy_options(world: TlsWorld) -> dict[str, Any]:
    """Return the options that make our server lazy; asyncio's cannot be."""
    return {"lazy": True} if world.native else {}


def test_pause_reading_in_buffer_updated(loop_factory: LoopFactory, kind: str) -> None:
    """Its buffer is full each time; it is asked for a buffer again only when it reads again."""

    async def script(world: TlsWorld) -> None:
        def room(protocol: Any, sizehint: int) -> Any:
            full = world.count("buffer_updated") > world.count("resumed")
            if full:
                world.note("asked while paused")
            return memoryview(protocol.buffer)[: 0 if full else None]

        hooks: dict[str, Hook] = {
            "get_buffer": room,
            "buffer_updated": lambda protocol, _: protocol.transport.pause_reading(),
        }
        await world.serve(lambda: TlsBuffered(world, hooks, size=100), **lazy_options(world))
        client = await world.join()
        await client.send(bytes(range(250)))
        for i in range(1, 4):
            await world.until("buffer_updated", i)
            await world.settle()
            world.note("resumed")
            world.transports[-1].resume_reading()
        await client.notify()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert [note[2] for note in log if note[0] == "buffer_updated"] == [
        bytes(range(100)),
        bytes(range(100, 200)),
        bytes(range(200, 250)),
    ]


def test_set_protocol_in_buffer_updated(loop_factory: LoopFactory, kind: str) -> None:
    """The rest of the first record goes to the new protocol, which is not a buffered one."""

    async def script(world: TlsWorld) -> None:
        def replace(protocol: Any, _: int) -> None:
            protocol.transport.set_protocol(TlsRecorder(world, name="second "))

        hooks: dict[str, Hook] = {"buffer_updated": replace}
        await world.serve(lambda: TlsBuffered(world, hooks, size=100), **lazy_options(world))
        client = await world.join()
        await client.send(bytes(range(250)))
        await world.until("second data_received")
        await client.notify()
        await world.until("second connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("buffer_updated", 100, bytes(range(100))) in log
    assert [note[-1] for note in log if note[0] == "second data_received"] == [
        bytes(range(100, 250))
    ]


def test_engine_closed_in_get_buffer(loop_factory: LoopFactory, kind: str) -> None:
    """Afterwards no callback is called and nothing is reported."""

    async def script(world: TlsWorld) -> None:
        def close(protocol: Any, sizehint: int) -> Any:
            engine_for(world.loop).close()
            return memoryview(protocol.buffer)

        await world.serve(lambda: TlsBuffered(world, {"get_buffer": close}), lazy=True)
        client = await world.join()
        await client.send(b"first")
        world.note("client", (await client.rest())[0])
        await world.settle()
        world.server.close()

    log = play_tls(script, loop_factory, kind=kind)
    assert log == [("connection_made",), ("client", b"")]
