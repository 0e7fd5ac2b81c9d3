"""An accept queue of a process's own (SO_REUSEPORT): no other process takes clients from it.

Rules of this file: the engine is in the test's process, and the other members are records in the
arena that the test writes. Turns are taken by the test, so that an engine that is not on duty has
no time to look for clients that nobody accepts: it would take two looks, some milliseconds apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from support.arena_memory import appear_to_accept, ask_to_be_woken, is_woken
from support.listener import Listener, bound_socket, listening
from support.loops import LoopFactory, run
from support.waiting import PATIENCE, eventually

from fastlisten._arena import Arena
from fastlisten._core import Acceptor, Engine
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"


class Clients:
    """Clients that connect without giving the event loop a turn."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def connect(self, listener: Listener, count: int = 1) -> None:
        for _ in range(count):
            client = socket.create_connection(listener.address, PATIENCE)
            self._stack.enter_context(client)


@contextlib.asynccontextmanager
async def off_duty(shared: Listener, clients: Clients, arena: Arena) -> AsyncIterator[None]:
    """Let others have less load than this process, which then hands over."""
    assert shared.engine.on_duty
    for member in (1, 2):
        appear_to_accept(arena, member, 0)
    clients.connect(shared, 8)
    await eventually(lambda: not shared.engine.on_duty, "the end of the duty")
    yield


def sharing(arena: Arena) -> Engine:
    engine = engine_for(asyncio.get_running_loop())
    engine.share_load(arena, arena.join())
    return engine


def test_process_off_duty_accepts_from_its_own_queue_at_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 4)
        engine = sharing(arena)
        with contextlib.ExitStack() as stack:
            clients = Clients(stack)
            async with (
                listening(lazy=True, greeting=GREETING) as shared,
                listening(lazy=True, greeting=GREETING, own_queue=True) as own,
                off_duty(shared, clients, arena),
            ):
                before = shared.acceptor.connections
                clients.connect(shared)
                clients.connect(own)
                engine._wake()
                assert own.acceptor.connections == 1
                assert shared.acceptor.connections == before

    run(loop_factory, main)


def test_own_queue_is_emptied_whatever_the_others_have(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 4)
        engine = sharing(arena)
        for member in (1, 2):
            appear_to_accept(arena, member, 0)
        with contextlib.ExitStack() as stack:
            clients = Clients(stack)
            async with listening(lazy=True, own_queue=True) as own:
                assert not engine.on_duty  # it shares no socket with anybody
                clients.connect(own, 60)
                taken = 0
                for _ in range(60):  # the time of a turn is limited, too
                    engine._wake()
                    taken = max(taken, own.acceptor.connections)
                assert taken == 60
                assert not any(is_woken(arena, member) for member in (1, 2))

    run(loop_factory, main)


def test_both_kinds_of_sockets_are_served_in_one_turn(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        engine = sharing(Arena(1, 4))
        with contextlib.ExitStack() as stack:
            clients = Clients(stack)
            async with (
                listening(lazy=True) as shared,
                listening(lazy=True, own_queue=True) as own,
            ):
                assert engine.on_duty
                clients.connect(shared)
                clients.connect(own)
                engine._wake()
                assert (shared.acceptor.connections, own.acceptor.connections) == (1, 1)

    run(loop_factory, main)


def test_eager_burst_on_both_kinds_of_sockets(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        engine = sharing(Arena(1, 4))
        with contextlib.ExitStack() as stack:
            clients = Clients(stack)
            async with (
                listening(sock=bound_socket(), start=False) as shared,
                listening(own_queue=True, start=False) as own,
            ):
                clients.connect(own, 300)
                clients.connect(shared, 80)
                own.acceptor.resume()
                shared.acceptor.resume()
                await eventually(lambda: own.acceptor.connections == 300)
                await eventually(lambda: shared.acceptor.connections == 80)
                assert engine.census()["endpoints"] == 380

    run(loop_factory, main)


def test_process_with_own_queues_only_is_no_rival(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 4)
        engine = sharing(arena)
        async with listening(lazy=True, own_queue=True):
            duties = [engine.on_duty]
            async with listening(lazy=True):
                duties.append(engine.on_duty)
            assert [*duties, engine.on_duty] == [False, True, False]

    run(loop_factory, main)


def test_paused_own_queue_keeps_its_clients(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        engine = sharing(Arena(1, 4))
        with contextlib.ExitStack() as stack:
            clients = Clients(stack)
            async with listening(lazy=True, own_queue=True) as own:
                own.acceptor.pause()
                clients.connect(own)
                engine._wake()
                assert own.acceptor.connections == 0
                own.acceptor.resume()
                engine._wake()
                assert own.acceptor.connections == 1

    run(loop_factory, main)


def test_waiting_queues_are_woken_in_turn(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        arena = Arena(1, 4)
        places = arena.places(0, arena.join())
        places.limit = 3
        for member, load in ((1, 90), (2, 0), (3, 5)):
            appear_to_accept(arena, member, load)
        async with listening(
            lazy=True, greeting=GREETING, wait=True, own_queue=True, places=places
        ) as own:
            guests = [await own.connect() for _ in range(3)]
            for guest in guests:
                assert await guest.read() == GREETING
            woken: list[int] = []
            for member in (1, 2, 3):
                ask_to_be_woken(arena, member)
            for number, guest in enumerate(guests, 1):
                guest.close()
                await eventually(lambda: places.count == 3 - number)  # noqa: B023
                woken += [member for member in (1, 2, 3) if is_woken(arena, member)]
            # Not the one with the least load: its own clients would always come first.
            assert woken == [1, 2, 3]

    run(loop_factory, main)


def test_numbers_of_closed_acceptors_are_used_again(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(lazy=True) as first, listening(lazy=True) as last:
            with first.sock.dup() as sock:
                for _ in range(70_000):  # there are 65,535
                    Acceptor(last.engine, sock, None).close()
            assert last.engine.census()["listeners"] == 2

    run(loop_factory, main)
