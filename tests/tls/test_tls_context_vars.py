"""Contexts of callbacks over TLS, and debug mode, compared with asyncio.

Rules of this file: as in test_tls_transport; callbacks note what they find in a context variable.
"""

from __future__ import annotations

import asyncio

import pytest
from support.context_variable import setting_factory, variable
from support.loops import LoopFactory
from support.tls_world import TlsRecorder, TlsWorld, play_tls, same_tls
from support.world import Hook

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.mark.parametrize("who", ["nobody", "factory", "connection_made", "data_received"])
def test_context_variables_shared_between_callbacks(loop_factory: LoopFactory, who: str) -> None:
    """A connection never sees what another has set, nor does the program see either's."""

    async def script(world: TlsWorld) -> None:
        variable.set("server")
        await world.serve(setting_factory(world, TlsRecorder, who))
        variable.set("later")
        for _ in range(2):
            client, _ = await world.made()
            for word in (b"one", b"two"):
                before = world.count("data_received")
                await client.send(word)
                await world.until("data_received", before + 1)
            lost = world.count("connection_lost")
            await client.notify()
            await world.until("connection_lost", lost + 1)
        world.note("outside", variable.get())

    log = same_tls(script, loop_factory)
    assert ("outside", "later") in log


def test_tasks_inherit_the_context_of_the_callback(loop_factory: LoopFactory) -> None:
    async def script(world: TlsWorld) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            world.note("task", variable.get())

        tasks = []

        def factory() -> TlsRecorder:
            variable.set("factory")
            return TlsRecorder(
                world, {"data_received": lambda p, d: tasks.append(world.loop.create_task(work()))}
            )

        await world.serve(factory)
        client, _ = await world.made()
        await client.send(b"go")
        await world.until("task")

    assert ("task", "factory") in same_tls(script, loop_factory)


def test_requests_and_replies_in_debug_mode(loop_factory: LoopFactory) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        await client.send(b"hello")
        world.note("client", await client.receive(5))
        await client.notify()
        await world.until("connection_lost")

    assert ("client", b"hello") in same_tls(script, loop_factory, debug=True)


def test_failed_handshake_in_debug_mode(loop_factory: LoopFactory) -> None:
    """Not reported, or to the exception handler in asyncio's words; the client sees the end."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client = await world.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        world.note("client", await client.rest())
        await world.settle()

    log = play_tls(script, loop_factory, debug=True)
    assert log[-1] == ("client", (b"", "eof"))
    expected = play_tls(script, asyncio.SelectorEventLoop, native=False, debug=True)
    assert all(note in expected for note in log)
