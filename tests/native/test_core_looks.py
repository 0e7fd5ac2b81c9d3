"""Processes that look by themselves for clients or for places: they take turns.

Rules of this file: real processes, and the kernel's count of how often they were woken. What is
bounded is wake-ups per second and per client, however long the machine takes: were each process to
look for itself, there would be several times as many.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from support.forked import Child, serving
from support.kernel import wake_ups
from support.listener import Echo, bound_socket
from support.loops import LOOPS
from support.waiting import until

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
WORKERS = 12
PLACES = 3

#: Seconds in which wake-ups are counted.
SECONDS = 1.5

#: Looks a second of all processes together, for clients that nobody accepts (at most, and while no
#: clients come) and for places; and how often each shows that it is alive.
LOOKS, SELDOM_LOOKS, PLACE_LOOKS, PULSES = 250, 16, 20, 4


class Processes:
    """Processes on one listening socket: they share the load, wait for places, or both."""

    def __init__(self, stack: contextlib.ExitStack, wait: bool, share: bool) -> None:
        self.stack = stack
        self.sock = stack.enter_context(bound_socket())
        self.arena = Arena(1, WORKERS + 1)
        self.wait = wait
        self.share = share
        self.arena.places(0, self.arena.join()).limit = PLACES if wait else 0
        keep = [self.sock.fileno(), self.arena.fd, *self.arena.wakeups]
        commands = {"full": lambda server: all(acceptor.full for acceptor in server._acceptors)}
        loops = list(LOOPS.values())
        self.workers = [
            stack.enter_context(Child(serving(loops[number % 2], self._start, commands), keep))
            for number in range(WORKERS)
        ]
        assert [worker.hear() for worker in self.workers] == ["ready"] * WORKERS

    async def _start(self) -> ConnectionServer:
        member = self.arena.join()
        if self.share:
            engine_for(asyncio.get_running_loop()).share_load(self.arena, member)
        return await create_server(
            Echo,
            sock=self.sock,
            backlog=4096,
            max_connections=self.arena.places(0, member),
            limit_action="wait" if self.wait else "refuse",
            greeting=GREETING,
            lazy=True,
        )

    def connect(self) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(self.sock.getsockname(), 20))

    def serve(self) -> None:
        """Connect a client that is greeted and leaves."""
        with socket.create_connection(self.sock.getsockname(), 20) as client:
            assert client.recv(100) == GREETING

    def wait_for_sleep(self) -> None:
        until(lambda: all(worker.ask("full") for worker in self.workers), "all wait for a place")

    def wake_ups(self) -> int:
        return sum(wake_ups(worker.pid) for worker in self.workers)


@contextlib.contextmanager
def processes(*, wait: bool = False, share: bool = False) -> Iterator[Processes]:
    with contextlib.ExitStack() as stack:
        yield Processes(stack, wait, share)


def test_processes_off_duty_take_turns_to_look_for_clients() -> None:
    with processes(share=True) as made:
        made.serve()
        before, begun, clients = made.wake_ups(), time.monotonic(), 0
        while (took := time.monotonic() - begun) < SECONDS:
            made.serve()
            clients += 1
            time.sleep(0.005)
        looks = took * (LOOKS + PULSES * WORKERS)
        # Two are on duty and told of each client, one of them also of its end; now and then others,
        # because duty is handed over.
        assert made.wake_ups() - before <= 1.3 * (looks + 4 * clients)


def test_processes_off_duty_look_seldom_while_no_clients_come() -> None:
    with processes(share=True) as made:
        made.serve()
        # They look less often one after the other.
        time.sleep(SECONDS / 2)
        before, begun = made.wake_ups(), time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - begun
        assert made.wake_ups() - before <= 1.3 * took * (SELDOM_LOOKS + PULSES * WORKERS)


def test_processes_that_wait_take_turns_to_look_for_places() -> None:
    with processes(wait=True) as made:
        guests = [made.connect() for _ in range(PLACES)]
        assert [guest.recv(100) for guest in guests] == [GREETING] * PLACES
        waiting = made.connect()
        made.wait_for_sleep()
        before, begun = made.wake_ups(), time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - begun
        # Each may have set its first look before all others waited.
        assert made.wake_ups() - before <= 1.5 * PLACE_LOOKS * took + WORKERS
        guests[0].close()
        assert waiting.recv(100) == GREETING


def test_two_processes_are_woken_for_each_place() -> None:
    with processes(wait=True, share=True) as made:
        guests = [made.connect() for _ in range(PLACES)]
        assert [guest.recv(100) for guest in guests] == [GREETING] * PLACES
        queue = [made.connect() for _ in range(150)]
        made.wait_for_sleep()
        before, begun = made.wake_ups(), time.monotonic()
        for guest, client in zip([*guests, *queue], queue, strict=False):
            guest.close()
            assert client.recv(100) == GREETING
            # Whatever the process that got the place has still to do, it does before the next.
            time.sleep(0.006)
        took = time.monotonic() - begun
        looks = took * (PLACE_LOOKS + PULSES * WORKERS)
        # That of the client that leaves, and the one that gets its place.
        assert made.wake_ups() - before <= 2.4 * len(queue) + 1.3 * looks
