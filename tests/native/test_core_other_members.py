"""What an engine does for the other members of its arena: whom it wakes, what it leaves to them.

Rules of this file: the engine is in the test's process. The others are records in the arena that
the test writes, so that nothing but the engine wakes them. Real processes are in
test_core_wait_ring.py and test_core_balance.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest
from support.arena_memory import appear_to_accept, ask_to_be_woken, is_woken, waiting
from support.listener import crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import PATIENCE, eventually

from fastlisten._arena import Arena
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"


# --- sharing the load -------------------------------------------------------------------------


def test_members_with_the_least_load_are_woken_when_one_hands_over(
    loop_factory: LoopFactory,
) -> None:
    async def main() -> None:
        arena = Arena(1, 4)
        engine = engine_for(asyncio.get_running_loop())
        engine.share_load(arena, arena.join())
        async with listening(greeting=GREETING, lazy=True) as listener:
            assert engine.on_duty
            for member, load in ((1, 9), (2, 0), (3, 1)):
                appear_to_accept(arena, member, load)
            async with crowd_of(listener, 2) as guests:
                for guest in guests:
                    assert await guest.read() == GREETING
                # Two are to be on duty. The other one has more than its share already.
                assert [is_woken(arena, member) for member in (1, 2, 3)] == [False, True, True]

    run(loop_factory, main)


def test_burst_is_not_taken_at_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 2)
        engine_for(asyncio.get_running_loop()).share_load(arena, arena.join())
        turns = []
        async with listening(start=False) as listener, asyncio.timeout(PATIENCE):
            with contextlib.ExitStack() as stack:
                for _ in range(100):
                    stack.enter_context(socket.create_connection(listener.address, PATIENCE))
                listener.acceptor.resume()
                before = 0
                while before < 100:
                    # At most one turn, because there is one in an iteration of the loop.
                    await asyncio.sleep(0)
                    accepted = listener.acceptor.statistics()["accepted"]
                    turns.append(accepted - before)
                    before = accepted
        assert 1 <= max(turns) <= 16

    run(loop_factory, main)


# --- waiting for places -----------------------------------------------------------------------


def test_full_listener_asks_to_be_woken(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 2)
        places, other = arena.places(0, arena.join()), arena.places(0, arena.join())
        places.limit = 1
        assert other.take()
        async with (
            listening(places=places, wait=True, greeting=GREETING) as listener,
            crowd_of(listener, 1) as guests,
        ):
            await eventually(lambda: listener.acceptor.full)
            assert waiting(arena) == {0}
            other.give()
            assert waiting(arena) == set()
            assert await guests[0].read() == GREETING

    run(loop_factory, main)


def test_listener_that_is_paused_after_the_ring_passes_it_on(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 3)
        places, other = arena.places(0, arena.join()), arena.places(0, 2)
        places.limit = 1
        assert other.take()
        appear_to_accept(arena, 1, load=5)
        async with (
            listening(places=places, wait=True) as listener,
            crowd_of(listener, 1),
        ):
            await eventually(lambda: listener.acceptor.full)
            ask_to_be_woken(arena, 1)
            other.give()
            # The engine has the least load. It has had no turn since.
            assert waiting(arena) == {1}
            listener.acceptor.pause()
            assert waiting(arena) == set()
            assert is_woken(arena, 1)

    run(loop_factory, main)


def test_paused_listener_passes_on_a_ring_that_it_gets(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 2)
        places = arena.places(0, arena.join())
        places.limit = 1
        async with listening(places=places, wait=True, start=False):
            ask_to_be_woken(arena, 1)
            os.eventfd_write(arena.wakeups[0], 1)
            await eventually(lambda: is_woken(arena, 1), "the ring to be passed on")
            assert waiting(arena) == set()
            # There is nothing to pass on without a free place.
            assert places.take()
            ask_to_be_woken(arena, 1)
            rung = engine_for(asyncio.get_running_loop()).rung
            os.eventfd_write(arena.wakeups[0], 1)
            await eventually(lambda: engine_for(asyncio.get_running_loop()).rung > rung)
            assert waiting(arena) == {1}
            places.give()
            assert is_woken(arena, 1)

    run(loop_factory, main)
