"""A buffer of the protocol's own over TLS, and bytes that were decrypted before it was known.

Rules of this file: as in test_tls_transport. Where a protocol is made at the first byte (`lazy`),
the first record is decrypted already, and is handed over in pieces; asyncio, which makes protocols
at accept, says what they see.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_world import (
    WAY_NAMES,
    WAYS,
    TlsBuffered,
    TlsRecorder,
    TlsWorld,
    play_tls,
    same_tls,
)
from support.world import Hook

from fastlisten.loop.engines import engine_for

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    pytest.mark.parametrize(("loop_factory", "kind"), WAYS, ids=WAY_NAMES),
]


def lazily(world: TlsWorld) -> dict[str, Any]:
    """Return what makes our server lazy; asyncio's cannot be."""
    return {"lazy": True} if world.native else {}


def test_a_lazy_protocol_pauses_within_buffer_updated(loop_factory: LoopFactory, kind: str) -> None:
    """Its buffer is full each time: it is asked for it again only when it reads again."""

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
        await world.serve(lambda: TlsBuffered(world, hooks, size=100), **lazily(world))
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


def test_a_lazy_protocol_replaces_itself(loop_factory: LoopFactory, kind: str) -> None:
    """What is left of the first record goes to the new protocol, which has no buffer."""

    async def script(world: TlsWorld) -> None:
        def replace(protocol: Any, _: int) -> None:
            protocol.transport.set_protocol(TlsRecorder(world, name="second "))

        hooks: dict[str, Hook] = {"buffer_updated": replace}
        await world.serve(lambda: TlsBuffered(world, hooks, size=100), **lazily(world))
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


def test_the_engine_is_closed_by_a_lazy_protocol(loop_factory: LoopFactory, kind: str) -> None:
    """Where it is asked for a buffer: nothing is called after that, nothing is reported."""

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
