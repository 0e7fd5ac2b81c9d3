"""Closed acceptors: the engine lets go of each as soon as its last connection has ended.

Rules of this file: clients are lazy unless a test says something else, so that their end is noticed
without Python.
"""

from __future__ import annotations

import contextlib

import pytest
from support.listener import crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_closed_acceptor_stays_until_its_last_connection_ends(
    loop_factory: LoopFactory, lazy: bool
) -> None:
    async def main() -> None:
        async with listening(lazy=lazy) as listener, crowd_of(listener, 2) as guests:
            await eventually(lambda: listener.acceptor.connections == 2)
            listener.acceptor.close()
            assert not listener.retired.is_set()
            guests[0].close()
            await eventually(lambda: listener.acceptor.connections == 1)
            assert not listener.retired.is_set()
            assert listener.engine.census()["listeners"] == 1
            guests[1].close()
            await eventually(listener.retired.is_set, "the acceptor to be retired")
            assert listener.engine.census()["listeners"] == 0

    run(loop_factory, main)


def test_acceptor_without_connections_is_retired_at_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(lazy=True) as listener:
            async with crowd_of(listener, 1):
                await eventually(lambda: listener.acceptor.connections == 1)
            await eventually(lambda: listener.acceptor.connections == 0)
            assert not listener.retired.is_set()
            listener.acceptor.close()
            assert listener.retired.is_set()

    run(loop_factory, main)


def test_several_acceptors_end_in_one_turn(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(listening(lazy=True)) for _ in range(6)]
            guests = [await listener.connect() for listener in listeners]
            await eventually(lambda: all(one.acceptor.connections == 1 for one in listeners))
            for listener in listeners[:5]:
                listener.acceptor.close()
            # The engine has no turn between these.
            for guest in guests[:5]:
                guest.close()
            await eventually(lambda: all(one.retired.is_set() for one in listeners[:5]))
            engine = listeners[5].engine
            assert engine.census()["listeners"] == 1
            # Their numbers are used again, and the one that has stayed is not disturbed.
            async with listening(lazy=True) as another, crowd_of(another, 1) as more:
                for client in (guests[5], more[0]):
                    await client.send(b"ping")
                    assert await client.read() == b"ping"
                assert engine.census()["listeners"] == 2
            guests[5].close()

    run(loop_factory, main)
