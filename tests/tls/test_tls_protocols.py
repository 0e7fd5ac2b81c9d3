"""Which protocol is called over TLS: set_protocol and buffered protocols.

Rules of this file: as in test_tls_transport.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_world import TlsBuffered, TlsRecorder, TlsWorld, on_all_ways, play_tls, same_tls
from support.world import Hook, numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def test_set_protocol_between_callbacks(loop_factory: LoopFactory, kind: str) -> None:
    """Each callback goes to the protocol that is set at that moment."""

    async def script(world: TlsWorld) -> None:
        second = TlsRecorder(world, name="second ")
        third = TlsBuffered(world, name="third ", size=64)
        fourth = TlsRecorder(world, name="fourth ")

        def change(protocol: Any, data: bytes) -> None:
            protocol.transport.set_protocol(second)
            world.note("get_protocol", protocol.transport.get_protocol() is second)

        await world.serve(lambda: TlsRecorder(world, {"data_received": change}))
        client, transport = await world.made()
        await client.send(b"for the first")
        await world.until("data_received")
        await client.send(b"for the second")
        await world.until("second data_received")
        transport.set_protocol(third)
        await client.send(b"for the third")
        await world.until("third buffer_updated")
        transport.set_protocol(fourth)
        await client.send(b"for the fourth")
        await world.until("fourth data_received")
        await client.notify()
        await world.until("fourth connection_lost")

    same_tls(script, loop_factory, kind=kind)


def test_set_protocol_after_close(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        transport.close()
        transport.set_protocol(TlsRecorder(world, name="second "))
        world.note("client", await client.rest())
        await client.notify()
        await world.until("second connection_lost")

    same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("size", [1, 5, 1000, 100_000])
def test_buffered_protocol(loop_factory: LoopFactory, kind: str, size: int) -> None:
    """All decrypted data arrives in order, however small the buffer, and then the end."""
    sent = numbers(min(30_000, size * 600))

    async def script(world: TlsWorld) -> None:
        received = bytearray()
        updates: Hook = lambda p, n: received.extend(p.buffer[:n])  # noqa: E731
        await world.serve(lambda: TlsBuffered(world, {"buffer_updated": updates}, size=size))
        client, _ = await world.made()
        # Many records in one segment, so that most of it waits inside OpenSSL.
        await client.raw.send(
            b"".join(client.sealed(sent[i : i + 997]) for i in range(0, len(sent), 997))
        )
        await world.until(lambda: len(received) >= len(sent))
        await client.notify()
        await world.until("connection_lost")
        world.log[:] = [note for note in world.log if note[0] != "buffer_updated"]
        world.note("received", bytes(received) == sent)

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("received", True)


def test_empty_buffer_is_an_error(loop_factory: LoopFactory, kind: str) -> None:
    """A protocol that returns no room for input fails, and nothing spins."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"get_buffer": lambda p, hint: bytearray()}
        await world.serve(lambda: TlsBuffered(world, hooks))
        client = await world.join()
        await client.send(b"abc")
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log] == ["connection_made", "handler", "connection_lost"]
