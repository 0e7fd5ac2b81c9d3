"""limit-action = "wait" with several processes: who is woken when a place is given back.

Rules of this file: real processes on one listening socket; what counts is what clients are served
and how often processes were woken (`Engine.rung`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.forked import Child, serving
from support.listener import Echo, bound_socket
from support.loops import LOOPS
from support.waiting import until

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
WORKERS = 6
PLACES = 4


def pause(server: Any) -> bool:
    """Let the listener of a process stop accepting."""
    for acceptor in server._acceptors:
        acceptor.pause()
    return True


COMMANDS = {
    "rung": lambda server: engine_for(server.get_loop()).rung,
    "full": lambda server: all(acceptor.full for acceptor in server._acceptors),
    "pause": pause,
}


class Group:
    """Processes that wait for the places of one listener, and the arena that they share."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.sock = stack.enter_context(bound_socket())
        self.arena = Arena(1, WORKERS + 1)
        self.places = self.arena.places(0, self.arena.join())
        self.places.limit = PLACES
        keep = [self.sock.fileno(), self.arena.fd, *self.arena.wakeups]
        loops = list(LOOPS.values())
        self.workers = [
            stack.enter_context(Child(serving(loops[number % 2], self._start, COMMANDS), keep))
            for number in range(WORKERS)
        ]
        assert [worker.hear() for worker in self.workers] == ["ready"] * WORKERS

    async def _start(self) -> ConnectionServer:
        return await create_server(
            Echo,
            sock=self.sock,
            backlog=4096,
            max_connections=self.arena.places(0, self.arena.join()),
            limit_action="wait",
            greeting=GREETING,
            lazy=True,
        )

    def connect(self) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(self.sock.getsockname(), 20))

    def fill(self) -> list[socket.socket]:
        """Take the places with clients of ours, and let every process find that they are taken."""
        guests = [self.connect() for _ in range(PLACES)]
        assert [guest.recv(100) for guest in guests] == [GREETING] * PLACES
        return guests

    def wait_for_sleep(self) -> None:
        until(lambda: all(worker.ask("full") for worker in self.workers), "all wait for a place")

    def rung(self) -> int:
        return sum(int(worker.ask("rung")) for worker in self.workers)


@contextlib.contextmanager
def group() -> Iterator[Group]:
    with contextlib.ExitStack() as stack:
        yield Group(stack)


def test_one_process_is_woken_for_each_place() -> None:
    with group() as made:
        guests = made.fill()
        queue = [made.connect() for _ in range(40)]
        made.wait_for_sleep()
        before = made.rung()
        for number, client in enumerate(queue):
            guests.append(client)
            guests[number].close()
            assert client.recv(100) == GREETING
            assert made.places.count <= PLACES
        # Not six times as many, one for each process. Some more, because a process that has just
        # looked for a place may have been asleep for another one.
        assert 40 <= made.rung() - before <= 60


def test_raised_limit_is_used_up_by_processes_in_turn() -> None:
    with group() as made:
        made.fill()
        queue = [made.connect() for _ in range(30)]
        made.wait_for_sleep()
        made.places.limit = PLACES + 30
        assert [client.recv(100) for client in queue] == [GREETING] * 30


def test_stopped_process_does_not_keep_a_place() -> None:
    with group() as made:
        guests = made.fill()
        queue = [made.connect() for _ in range(10)]
        made.wait_for_sleep()
        # Those which hold none of the clients that leave, but may be woken for their places.
        idle = [worker for worker in made.workers if not worker.ask("connections")]
        assert idle
        for worker in idle:
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            for number, client in enumerate(queue):
                guests.append(client)
                guests[number].close()
                assert client.recv(100) == GREETING
        finally:
            for worker in idle:
                os.kill(worker.pid, signal.SIGCONT)


def test_no_place_is_kept_for_paused_processes() -> None:
    with group() as made:
        guests = made.fill()
        queue = [made.connect() for _ in range(10)]
        made.wait_for_sleep()
        for worker in made.workers[:-1]:
            assert worker.ask("pause")
        for number, client in enumerate(queue):
            guests.append(client)
            guests[number].close()
            assert client.recv(100) == GREETING


def test_closed_listener_of_the_same_process_wakes_the_other_one() -> None:
    async def main() -> None:
        arena = Arena(1, 1)
        places = arena.places(0, arena.join())
        places.limit = 1
        assert places.take()

        async def start() -> ConnectionServer:
            return await create_server(
                Echo, "127.0.0.1", 0, max_connections=places, limit_action="wait", greeting=GREETING
            )

        first, second = await start(), await start()
        streams = [
            await asyncio.open_connection(*server.sockets[0].getsockname())
            for server in (first, second)
        ]
        async with asyncio.timeout(20):
            while not all(one.full for server in (first, second) for one in server._acceptors):
                await asyncio.sleep(0.001)
            # Both sleep under one bit, which goes with the first.
            first.close()
            places.give()
            assert await streams[1][0].readline() == GREETING
        for _, writer in streams:
            writer.close()
        second.close()
        await first.wait_closed()
        await second.wait_closed()

    asyncio.run(main())
