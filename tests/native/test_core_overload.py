"""A process that really runs out of descriptors, and one that stops accepting before it does.

Rules of this file: descriptors are exhausted in child processes, one per event loop, both at the
same time. What is measured is their CPU time by the kernel's account, never speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.forked import Child, serving
from support.kernel import cpu_time
from support.listener import Echo, bound_socket, crowd_of, listening
from support.loops import LOOPS, LoopFactory, run
from support.waiting import PATIENCE, eventually

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena, Places
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
OVERLOAD = b"421 4.3.2 out of resources\r\n"

#: In a child: what exhausts its descriptors, the places of its second server, its log lines.
files: list[int] = []
places: list[Places] = []
lines: list[str] = []


class CollectingHandler(logging.Handler):
    """Keeps the messages of the package's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        lines.append(record.getMessage())


def soft_limit(value: int) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (value, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )


def open_all(server: ConnectionServer) -> int:
    """Open files until no descriptor is left."""
    while True:
        try:
            files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return len(files)


def close_all(server: ConnectionServer) -> None:
    while files:
        os.close(files.pop())


COMMANDS: dict[str, Callable[..., Any]] = {
    "open_all": open_all,
    "close_all": close_all,
    "limit": lambda server, value: soft_limit(value),
    "capacity": lambda server: engine_for(server.get_loop()).capacity,
    "open": lambda server: engine_for(server.get_loop()).open,
    "places": lambda server: places[0].count,
    "lines": lambda server: lines,
}


class StarvedServer:
    """A child that serves two sockets with few descriptors, and its clients.

    Attributes:
        process: the child itself.
        addresses: of its two sockets.
    """

    def __init__(self, stack: contextlib.ExitStack, loop_factory: LoopFactory, limit: int) -> None:
        self.stack = stack
        socks = [bound_socket(), bound_socket()]
        self.addresses = [sock.getsockname() for sock in socks]

        async def start() -> ConnectionServer:
            soft_limit(limit)
            logging.getLogger("fastlisten").addHandler(CollectingHandler())
            ports = [sock.detach() for sock in socks]
            first, second = (socket.socket(fileno=port) for port in ports)
            server = await create_server(
                Echo, sock=first, backlog=4096, greeting=GREETING, refusal=OVERLOAD
            )
            # Takes a place before it accepts: none may be lost if accept fails.
            places.append(Arena(1).places(0, 0))
            places[0].limit = 1000
            self.second = await create_server(
                Echo,
                sock=second,
                backlog=4096,
                greeting=GREETING,
                refusal=OVERLOAD,
                max_connections=places[0],
                limit_action="wait",
            )
            return server

        self.process = stack.enter_context(
            Child(serving(loop_factory, start, COMMANDS), [sock.fileno() for sock in socks])
        )
        assert self.process.hear() == "ready"
        for sock in socks:
            sock.close()

    def connect(self, which: int = 0) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(self.addresses[which], PATIENCE))

    def connect_served(self, size: int, which: int = 0) -> list[socket.socket]:
        """Connect this many clients, which must all be greeted."""
        clients = [self.connect(which) for _ in range(size)]
        for client in clients:
            assert client.recv(100) == GREETING
        return clients

    def connect_refused(self, size: int, which: int = 0) -> None:
        """Connect this many clients, which must all be told that there are no resources."""
        clients = [self.connect(which) for _ in range(size)]
        for client in clients:
            assert client.recv(100) == OVERLOAD
            assert client.recv(100) == b""
            client.close()

    def lines(self, size: int) -> list[str]:
        """Wait until the child has logged this many lines; return all."""
        end = time.monotonic() + PATIENCE
        while len(found := self.process.ask("lines")) < size:
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return list(found)


def all_echo(clients: list[socket.socket]) -> None:
    for client in clients:
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"


@pytest.fixture
def children() -> Iterator[Callable[[int], list[StarvedServer]]]:
    """Return a function that starts one child per event loop, with so many descriptors each."""
    with contextlib.ExitStack() as stack:
        yield lambda limit: [StarvedServer(stack, factory, limit) for factory in LOOPS.values()]


def test_refuses_politely_when_out_of_descriptors(
    children: Callable[[int], list[StarvedServer]],
) -> None:
    both = children(200)
    served = {
        child: child.connect_served(10, which=0) + child.connect_served(5, which=1)
        for child in both
    }
    for episode in (1, 2):
        for child in both:
            assert child.process.ask("open_all") > 100
            child.connect_refused(100)
            child.connect_refused(20, which=1)
            all_echo(served[child])
        # It lasts: clients keep coming, a few at once, and get the reply.
        before = [cpu_time(child.process.pid) for child in both]
        for _ in range(5):
            for child in both:
                child.connect_refused(3)
        used = [
            cpu_time(child.process.pid) - start for child, start in zip(both, before, strict=True)
        ]
        assert max(used) < 0.1, used
        for child in both:
            all_echo(served[child])
            found = child.lines(episode)
            assert len(found) == episode
            assert found[-1].startswith("listeners: accept failed ")
            assert f"EMFILE: {os.strerror(errno.EMFILE)}" in found[-1]
            # It recovers by itself: all it takes is files being closed.
            child.process.ask("close_all")
            for client in child.connect_served(60, which=0) + child.connect_served(10, which=1):
                client.close()
            all_echo(served[child])
        # Quiet for longer than the longest pause and than the time that ends an episode.
        time.sleep(2.2)
        for child in both:
            assert len(child.lines(episode)) == episode
            assert child.process.ask("statistics")["refused_overload"] == 115 * episode
            assert child.process.ask("places") == 5


def test_waits_when_no_descriptor_is_left_for_refusals(
    children: Callable[[int], list[StarvedServer]],
) -> None:
    both = children(200)
    served = {child: child.connect_served(5) for child in both}
    queues: dict[StarvedServer, list[socket.socket]] = {}
    for child in both:
        # Below what it already holds: the reserve can be neither used nor restored.
        child.process.ask("limit", 3)
        queues[child] = [child.connect(n % 2) for n in range(20)]
    time.sleep(0.2)
    before = [cpu_time(child.process.pid) for child in both]
    time.sleep(1)
    used = [cpu_time(child.process.pid) - start for child, start in zip(both, before, strict=True)]
    assert max(used) < 0.05, used
    for child in both:
        all_echo(served[child])
        child.process.ask("limit", 200)
        for client in queues[child]:
            assert client.recv(100) == GREETING
        all_echo(queues[child])
        assert len(child.lines(1)) == 1
        assert child.process.ask("places") == 10
        # The reserve is there again.
        child.process.ask("open_all")
        child.connect_refused(10)
        child.process.ask("close_all")


def test_accepting_stops_before_descriptors_run_out(
    children: Callable[[int], list[StarvedServer]],
) -> None:
    for child in children(160):
        capacity = child.process.ask("capacity")
        assert 60 < capacity < 160 - 40
        clients = child.connect_served(capacity)
        late = [child.connect(n % 2) for n in range(80)]
        found = child.lines(1)
        assert found[0].count(f"{capacity} connections are open") == 1
        all_echo(clients)
        assert child.process.ask("open") == capacity
        for client in clients:
            client.close()
        for client in late:
            assert client.recv(100) == GREETING
        statistics = child.process.ask("statistics")
        assert statistics["accept_errors"] == statistics["refused_overload"] == 0
        assert len(child.lines(1)) == 1


# --- the capacity of an engine ----------------------------------------------------------------


def test_accepting_stops_at_the_capacity_and_resumes(
    loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            listening(greeting=GREETING, server_first=True) as one,
            listening(greeting=GREETING, limit=3, wait=True) as other,
        ):
            engine = one.engine
            engine.set_capacity(10)
            async with crowd_of(one, 8) as clients, crowd_of(other, 2) as others:
                for client in clients + others:
                    assert await client.read() == GREETING
                async with crowd_of(one, 4) as queue, crowd_of(other, 1) as last:
                    await eventually(lambda: not one.acceptor.accepting)
                    assert not other.acceptor.accepting
                    await asyncio.sleep(0.05)
                    assert [client.at_hand() for client in queue + last] == [None] * 5
                    assert engine.open == 10
                    # A place is not taken before there is a descriptor for it.
                    assert other.places is not None
                    assert other.places.count == 2
                    clients[0].close()
                    clients[1].close()
                    await eventually(lambda: engine.open == 10 and one.acceptor.connections > 6)
                    engine.set_capacity(13)
                    for client in queue + last:
                        assert await client.read() == GREETING
                    assert engine.open == engine.capacity == 13
                    engine.set_capacity(20)
            # Reached again within a minute, it is not logged again.
            await eventually(lambda: engine.open == 0)
            engine.set_capacity(2)
            async with crowd_of(one, 5) as clients:
                assert [await client.read() for client in clients[:2]] == [GREETING] * 2
                await eventually(lambda: not one.acceptor.accepting)
                await asyncio.sleep(0.3)
            await eventually(lambda: engine.open == 0 and one.acceptor.accepting)

    with caplog.at_level(logging.WARNING, "fastlisten"):
        run(loop_factory, main)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "10 connections are open" in messages[0]


def test_refusals_take_at_most_a_quarter_of_the_capacity(loop_factory: LoopFactory) -> None:
    """A flood of refused clients that stay does not keep clients of another listener out."""

    async def main() -> None:
        async with (
            listening(limit=1, refusal=OVERLOAD) as full,
            listening(greeting=GREETING) as other,
        ):
            full.engine.set_capacity(8)
            async with crowd_of(full, 20) as clients:
                for client in clients[1:]:
                    assert await client.everything() == OVERLOAD
                assert full.acceptor.accepting
                assert full.engine.census()["parked"] == 2
                assert full.engine.open == 3
                async with crowd_of(other, 4) as greeted:
                    for client in greeted:
                        assert await client.read() == GREETING

    run(loop_factory, main)


def test_listener_added_at_capacity(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(greeting=GREETING) as one:
            one.engine.set_capacity(2)
            async with crowd_of(one, 3) as clients:
                await eventually(lambda: not one.acceptor.accepting)
                async with listening(greeting=GREETING) as other, crowd_of(other, 1) as late:
                    await asyncio.sleep(0.05)
                    assert late[0].at_hand() is None
                    for client in clients:
                        client.close()
                    assert await late[0].read() == GREETING

    run(loop_factory, main)


def test_capacity_is_at_least_one(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening() as listener:
            before = listener.engine.capacity
            for value in (0, -1):
                with pytest.raises(ValueError, match=f"at least 1, not {value}"):
                    listener.engine.set_capacity(value)
            assert listener.engine.capacity == before
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = len(os.listdir("/proc/self/fd"))
            assert before <= soft - min(256, soft // 4) - taken + 10

    run(loop_factory, main)
