"""Creating the core's objects with too few descriptors: an error, and nothing is left behind.

Rules of this file: in a child process whose limit is lowered to the descriptors in use and a few
more, starting at none and adding one until creation succeeds.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

import pytest
from support.forked import Child
from support.listener import Echo, bound_socket
from support.loops import LoopFactory

from fastlisten import create_server
from fastlisten._arena import Arena
from fastlisten._connection import ConnectionAcceptor
from fastlisten._core import Engine

pytestmark = pytest.mark.usefixtures("descriptors_back")


def descriptors() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


Undo = Callable[[], Awaitable[object]]


async def starve(make: Callable[[], Awaitable[Undo]]) -> tuple[int, list[str]]:
    """Call `make` with 0, 1, 2, ... free descriptors until it succeeds.

    Args:
        make: creates something and returns what undoes it.

    Returns:
        How many attempts failed, and what else went wrong.
    """
    wrong: list[str] = []
    sys.unraisablehook = lambda args: wrong.append(repr(args.exc_value))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Close the gaps below the highest number, so that the limit leaves exactly this many.
    while (gap := os.open("/dev/null", os.O_RDONLY)) < max(descriptors()[:-1]):
        pass
    os.close(gap)
    for spare in range(50):
        before = descriptors()[:-1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + spare, hard))
        undo: Undo | None = None
        try:
            undo = await make()
        except OSError as error:
            if error.errno != errno.EMFILE:
                wrong.append(f"{spare} spare: {error!r}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        done = undo is not None
        if undo is not None:
            await undo()
        undo = None
        gc.collect()
        if descriptors()[:-1] != before:
            wrong.append(f"{spare} spare: {before} became {descriptors()}")
        if done:
            break
    return spare, wrong


def starve_in_child(
    loop_factory: LoopFactory, make: Callable[[], Awaitable[Undo]]
) -> tuple[int, list[str]]:
    """Starve `make` in a child, on a running loop."""

    async def main() -> tuple[int, list[str]]:
        # Once without a limit, for what the loop itself creates at first use.
        await (await make())()
        return await starve(make)

    def body(channel: socket.socket) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            channel.send(json.dumps(runner.run(main())).encode())

    with Child(body) as child:
        failures, wrong = child.hear()
    return failures, wrong


def test_arena(loop_factory: LoopFactory) -> None:
    async def make() -> Undo:
        held = [Arena(2, 5)]
        assert len(held[0].wakeups) == 5

        async def undo() -> None:
            held.clear()

        return undo

    # The memory and a wake-up descriptor for each member.
    assert starve_in_child(loop_factory, make) == (6, [])


def test_engine(loop_factory: LoopFactory) -> None:
    async def make() -> Undo:
        engine = Engine(asyncio.get_running_loop())

        async def undo() -> None:
            engine.close()

        return undo

    # The epoll set, the timer and the reserve.
    assert starve_in_child(loop_factory, make) == (3, [])


def test_server(loop_factory: LoopFactory) -> None:
    async def make() -> Undo:
        server = await create_server(Echo, sock=bound_socket(), max_connections=3)

        async def undo() -> None:
            server.close()
            await server.wait_closed()

        return undo

    # The socket, the engine's three, the arena's two.
    assert starve_in_child(loop_factory, make) == (6, [])


def test_descriptors_beyond_the_slot_table(loop_factory: LoopFactory) -> None:
    # The table is as long as the hard limit; a descriptor opened before the limit was lowered may
    # have a higher number.
    async def main() -> list[str]:
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        arena = Arena(1)
        complaints = []
        with bound_socket() as high:
            for fd in files:
                os.close(fd)
            with bound_socket() as low:
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                engine = Engine(asyncio.get_running_loop())
                try:
                    ConnectionAcceptor(engine, high, Echo)
                except ValueError as error:
                    complaints.append(str(error))
                try:
                    ConnectionAcceptor(engine, low, Echo, places=arena.places(0, 0), wait=True)
                except OSError as error:
                    complaints.append(str(error))
                # Neither is half created.
                assert engine.idle
                assert engine.census()["listening"] == 0
                ConnectionAcceptor(engine, low, Echo).close()
                engine.close()
        return complaints

    def body(channel: socket.socket) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            channel.send(json.dumps(runner.run(main())).encode())

    with Child(body) as child:
        out_of_range, no_slot = child.hear()
    assert "of the listening socket is out of range" in out_of_range
    assert "beyond the table of slots" in no_slot


def test_failed_start_closes_the_listening_socket(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        sock = bound_socket()
        with pytest.raises(ValueError, match="at most 65,535"):
            await create_server(Echo, sock=sock, greeting=bytes(65_536))
        # As there, the socket is taken over, and closed with the object that failed.
        assert sock.fileno() == -1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
