"""The total of all listeners and a listener's reserve, as clients see them.

Rules of this file: as in test_core_limits. Two listeners share a total of six; the second one has
two of them in reserve.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.listener import Listener, crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

from fastlisten._arena import Arena, Places

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
REFUSAL = b"421 full\r\n"
#: How long to wait for something that must not happen, seconds.
A_WHILE = 0.05


@contextlib.asynccontextmanager
async def both(*, wait: bool, lazy: bool = True) -> AsyncIterator[tuple[Listener, Listener, Arena]]:
    """Serve two listeners, and yield them and their arena."""
    arena = Arena(5)
    member = arena.join()
    arena.places(2, member).limit = 4
    arena.places(4, member).limit = 2

    def places(row: int) -> Places:
        found = arena.places(row, member)
        found.limit = 100
        found.count_total(2, row + 3)
        return found

    settings: dict[str, Any] = {
        "wait": wait,
        "lazy": lazy,
        "greeting": GREETING,
        "refusal": REFUSAL,
    }
    async with (
        listening(places=places(0), **settings) as mail,
        listening(places=places(1), **settings) as web,
    ):
        yield mail, web, arena


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_reserved_listener_is_reachable_when_mail_is_full(
    loop_factory: LoopFactory, lazy: bool
) -> None:
    async def main() -> None:
        async with (
            both(wait=False, lazy=lazy) as (mail, web, arena),
            crowd_of(mail, 4) as guests,
        ):
            for guest in guests:
                assert await guest.read() == GREETING
            late = await mail.connect()
            assert await late.read() == REFUSAL
            async with crowd_of(web, 2) as managers:
                for manager in managers:
                    assert await manager.read() == GREETING
                third = await web.connect()
                assert await third.read() == REFUSAL
                third.close()
            late.close()
            assert [mail.acceptor.statistics()[name] for name in ("accepted", "refused_total")] == [
                4,
                1,
            ]
            assert web.acceptor.statistics()["refused_total"] == 1
            assert web.acceptor.statistics()["refused_limit"] == 0
            await eventually(lambda: arena.places(4, 0).count == 0)
            assert arena.places(2, 0).count == 4

    run(loop_factory, main)


def test_places_of_the_total_are_given_back(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with both(wait=False) as (mail, web, arena):
            for _ in range(3):
                async with crowd_of(web, 5) as guests:
                    for guest in guests:
                        assert await guest.read() == GREETING
                    assert (arena.places(2, 0).count, arena.places(4, 0).count) == (3, 2)
                    only = await mail.connect()
                    assert await only.read() == GREETING
                    refused = await web.connect()
                    assert await refused.read() == REFUSAL
                    only.reset()
                    refused.close()
                await eventually(lambda: arena.places(2, 0).count == arena.places(4, 0).count == 0)
            assert mail.acceptor.connections == web.acceptor.connections == 0

    run(loop_factory, main)


def test_waiting_listener_is_woken_by_the_other_one(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with both(wait=True) as (mail, web, arena), crowd_of(mail, 5) as guests:
            for guest in guests[:4]:
                assert await guest.read() == GREETING
            await eventually(lambda: mail.acceptor.total_reached)
            assert not mail.acceptor.full
            # Nothing is held while it sleeps.
            assert mail.places is not None
            assert (mail.places.count, arena.places(2, 0).count) == (4, 4)
            async with crowd_of(web, 3) as managers:
                assert [await manager.read() for manager in managers[:2]] == [GREETING] * 2
                await eventually(lambda: web.acceptor.total_reached)
                await asyncio.sleep(A_WHILE)
                assert managers[2].at_hand() is None
                assert guests[4].at_hand() is None
                # A shared place: either may have it, and then the other one gets the next.
                guests[0].close()
                guests[1].close()
                assert await guests[4].read() == GREETING
                assert await managers[2].read() == GREETING
            assert mail.acceptor.statistics()["refused_total"] == 0

    run(loop_factory, main)


def test_reserve_given_back_wakes_its_listener(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            both(wait=True) as (mail, web, _),
            crowd_of(mail, 4) as guests,
            crowd_of(web, 3) as managers,
        ):
            assert [await guest.read() for guest in guests] == [GREETING] * 4
            assert [await manager.read() for manager in managers[:2]] == [GREETING] * 2
            await eventually(lambda: web.acceptor.total_reached)
            managers[0].reset()
            assert await managers[2].read() == GREETING
            # Afterwards it is full again, and no process spins or holds anything.
            await eventually(lambda: web.acceptor.connections == 2)
            assert mail.acceptor.connections == 4

    run(loop_factory, main)


def test_raised_total_admits_waiting_clients(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with both(wait=True) as (mail, _, arena), crowd_of(mail, 6) as guests:
            assert [await guest.read() for guest in guests[:4]] == [GREETING] * 4
            await eventually(lambda: mail.acceptor.total_reached)
            arena.places(2, 0).limit = 6
            assert [await guest.read() for guest in guests[4:]] == [GREETING] * 2

    run(loop_factory, main)


def test_listener_waits_for_a_new_reserve_that_others_hold(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with both(wait=True) as (mail, web, arena):
            shared, reserve = arena.places(2, 0), arena.places(4, 0)
            shared.limit, reserve.limit = 6, 0
            async with crowd_of(mail, 6) as guests, crowd_of(web, 3) as managers:
                assert [await guest.read() for guest in guests] == [GREETING] * 6
                await eventually(lambda: web.acceptor.total_reached)
                shared.limit, reserve.limit = 4, 2
                for number, manager in enumerate(managers):
                    await eventually(lambda: web.acceptor.total_reached)
                    assert manager.at_hand() is None
                    guests[number].close()
                    assert await manager.read() == GREETING
                assert shared.count + reserve.count == 6

    run(loop_factory, main)
