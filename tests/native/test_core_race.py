"""max-connections and a crowd: thousands of clients come and go, four processes serve them.

Rules of this file: the limit is judged by what the clients see at one instant (support.crowd says
why that is exact). Two processes run asyncio's loop and two uvloop's, of each one lazy and one
eager, all on one listening socket and one arena.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.crowd import REFUSAL, Crowd, greeting_of
from support.forked import Child, serving
from support.listener import bound_socket
from support.loops import LOOPS
from support.queues import queues

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena, Places
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

PLACES = 100
PROCESSES = 4


class ClosesAtFirstInput(asyncio.Protocol):
    """Closes as soon as the client sends something."""

    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.close()


def census(server: ConnectionServer) -> dict[str, int]:
    return engine_for(server.get_loop()).census()


class Group:
    """Four server processes behind one address, and the arena that they share."""

    def __init__(self, action: Any) -> None:
        self.action = action
        self.sock = bound_socket()
        self.address = self.sock.getsockname()
        self.arena = Arena(2, PROCESSES + 1)
        self.places: Places = self.arena.places(1, self.arena.join())
        self.places.limit = PLACES
        self.children: list[Child] = []
        self.started = 0

    def open(self) -> Child:
        """Start one more process."""
        number = self.started
        self.started += 1

        async def start() -> ConnectionServer:
            member = self.arena.join()
            engine_for(asyncio.get_running_loop()).share_load(self.arena, member)
            return await create_server(
                ClosesAtFirstInput,
                sock=self.sock,
                backlog=4096,
                max_connections=self.arena.places(1, member),
                limit_action=self.action,
                refusal=REFUSAL,
                greeting=greeting_of(os.getpid()),
                lazy=number % 4 < 2,
            )

        loop_factory = list(LOOPS.values())[number % 2]
        keep = [self.sock.fileno(), self.arena.fd, *self.arena.wakeups]
        child = Child(serving(loop_factory, start, {"census": census}), keep)
        self.children.append(child)
        return child

    def kill(self, child: Child, crowd: Crowd) -> int:
        """Kill a process and start another; return how many places it held."""
        child.kill()
        # The kernel has closed its connections; before its places are given back, its clients must
        # no longer be counted.
        crowd.forget(child.pid)
        self.children.remove(child)
        pids = self.arena.pids()
        # If it was killed before it joined, it holds nothing.
        return self.arena.heal(pids.index(child.pid)) if child.pid in pids else 0

    def empty(self) -> None:
        """Wait until nobody is queued or has a place; check that no process holds on to anything.

        Clients that have left are in the queue until they are accepted, and then have a place.
        """
        end = time.monotonic() + 20
        while any(queues(self.address[1]).values()) or self.places.count:
            assert time.monotonic() < end, f"{self.places.count} places still taken"
            time.sleep(0.01)
        for child in self.children:
            assert child.ask("connections") == 0
            counts = child.ask("census")
            assert counts["open"] == counts["parked_slots"] == 0, counts
            assert counts["endpoints"] == counts["lazy"] == counts["served"] == 0, counts

    def close(self) -> None:
        """End the processes, return the descriptors."""
        for child in self.children:
            child.kill()
        self.sock.close()


@contextlib.contextmanager
def group(action: str) -> Iterator[Group]:
    made = Group(action)
    try:
        for _ in range(PROCESSES):
            assert made.open().hear() == "ready"
        yield made
    finally:
        made.close()


def all_places_are_usable(made: Group) -> None:
    """Fill all places again: exactly this many clients get in."""
    with contextlib.ExitStack() as stack:
        guests = []
        for _ in range(PLACES):
            guest = stack.enter_context(socket.create_connection(made.address, 20))
            assert guest.recv(100).startswith(b"220 ")
            guests.append(guest)
        assert made.places.count == PLACES
        late = stack.enter_context(socket.create_connection(made.address, 20))
        if made.action == "refuse":
            assert late.recv(100) == REFUSAL
            assert late.recv(100) == b""
        else:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.recv(100)
            late.settimeout(20)
            guests[7].close()
            assert late.recv(100).startswith(b"220 ")
    made.empty()


def run_race(action: str, cycles: int, seed: int) -> None:
    """2,000 clients for 100 places, until so many have been served and have left."""
    with group(action) as made:
        with Crowd(made.address, 2000, seed, pause=(0.2, 0.8)) as crowd:
            while crowd.cycles < cycles:
                crowd.run(0.1)
                assert crowd.most <= PLACES
        assert crowd.most == PLACES
        assert crowd.mute == crowd.resets == 0
        if action == "refuse":
            assert crowd.refused > cycles // 10
        else:
            assert crowd.refused == 0
        made.empty()
        served = [child.ask("statistics")["accepted"] for child in made.children]
        assert min(served) > 0, served
        all_places_are_usable(made)


def run_kills(action: str, kills: int, seed: int) -> None:
    """500 clients for 100 places while one process after another is killed."""
    rng = random.Random(seed)
    with group(action) as made:
        healed = 0
        with Crowd(made.address, 500, seed, hold=(0.01, 0.08)) as crowd:
            crowd.run(0.2)
            for _ in range(kills):
                crowd.run(rng.uniform(0.0, 0.04))
                victim = rng.choice(made.children)
                healed += made.kill(victim, crowd)
                assert victim.stop() == -signal.SIGKILL
                assert crowd.most <= PLACES
                made.open()
            most, crowd.most = crowd.most, 0
            for child in made.children:
                assert child.hear() == "ready"
            # However it died, the survivors use every place.
            end = time.monotonic() + 20
            while crowd.most < PLACES and time.monotonic() < end:
                crowd.run(0.1)
            assert crowd.most == PLACES, (most, crowd.most, made.places.count)
        assert healed > kills
        assert crowd.cycles > kills
        made.empty()
        all_places_are_usable(made)


@pytest.mark.parametrize("action", ["refuse", "wait"])
def test_limit_is_never_exceeded_and_fully_used(action: str) -> None:
    run_race(action, 4000, seed=2)


@pytest.mark.parametrize("action", ["refuse", "wait"])
def test_killed_processes_lose_no_places(action: str) -> None:
    run_kills(action, 40, seed=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("action", ["refuse", "wait"])
def test_long_limit_is_never_exceeded(action: str, seed: int) -> None:
    run_race(action, 100_000, seed)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("action", ["refuse", "wait"])
def test_long_killed_processes_lose_no_places(action: str, seed: int) -> None:
    run_kills(action, 2000, seed)
