"""Several loops in several threads, each with its own engine.

Rules of this file: one thread per loop, as asyncio requires; only sockets cross threads.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.loops import LoopFactory

import fastlisten
from fastlisten._core import Engine
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Echo(asyncio.Protocol):
    """Echoes, and notes in which thread."""

    threads: set[int]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.threads.add(threading.get_ident())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.threads.add(threading.get_ident())

    def connection_lost(self, exc: BaseException | None) -> None:
        self.threads.add(threading.get_ident())


def in_threads(
    loop_factory: LoopFactory, mains: list[Callable[[], Coroutine[Any, Any, None]]]
) -> None:
    """Run each coroutine on a loop in a thread of its own; raise what the first to fail raised."""
    errors: list[BaseException] = []

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(main,)) for main in mains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


async def talk(address: tuple[str, int], words: int) -> None:
    """Exchange words with an echo server."""
    reader, writer = await asyncio.open_connection(*address)
    for number in range(words):
        writer.write(b"%d\n" % number)
        assert await asyncio.wait_for(reader.readline(), 30) == b"%d\n" % number
    writer.close()
    await writer.wait_closed()


def test_each_thread_serves_its_own_connections(loop_factory: LoopFactory) -> None:
    """A server's callbacks run in its loop's thread; the clients come from the other's loop."""
    addresses: list[Any] = [None, None]
    engines: list[Engine] = []
    ready = threading.Barrier(2)
    done = threading.Barrier(2)

    def serve(number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def main() -> None:
            class Mine(Echo):
                threads: set[int] = set()  # noqa: RUF012

            loop = asyncio.get_running_loop()
            async with await fastlisten.create_server(Mine, "127.0.0.1", 0) as server:
                engines.append(engine_for(loop))
                addresses[number] = server.sockets[0].getsockname()
                await loop.run_in_executor(None, ready.wait, 30)
                await asyncio.gather(*(talk(addresses[1 - number], 20) for _ in range(20)))
                await loop.run_in_executor(None, done.wait, 30)
            assert Mine.threads == {threading.get_ident()}

        return main

    in_threads(loop_factory, [serve(0), serve(1)])
    assert engines[0] is not engines[1]
    assert all(engine.closed for engine in engines)


def test_engines_created_and_closed_beside_a_serving_one(loop_factory: LoopFactory) -> None:
    """This does not disturb the serving one's connections."""
    address: list[Any] = []
    ready = threading.Event()
    over = threading.Event()

    async def steady() -> None:
        class Mine(Echo):
            threads: set[int] = set()  # noqa: RUF012

        loop = asyncio.get_running_loop()
        async with await fastlisten.create_server(Mine, "127.0.0.1", 0) as server:
            address.append(server.sockets[0].getsockname())
            ready.set()
            await loop.run_in_executor(None, over.wait, 30)

    async def restless() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, ready.wait, 30)
        try:
            for _ in range(30):
                server = await fastlisten.create_server(Echo, "127.0.0.1", 0)
                await talk(address[0], 5)
                server.close()
                await server.wait_closed()
                assert engine_for(loop).open == 0
                engine_for(loop).close()
        finally:
            over.set()

    in_threads(loop_factory, [steady, restless])


def test_new_loop_at_the_same_address_gets_a_new_engine(loop_factory: LoopFactory) -> None:
    """Loops that reuse an address do not inherit an engine."""

    async def once() -> None:
        class Mine(Echo):
            threads: set[int] = set()  # noqa: RUF012

        async with await fastlisten.create_server(Mine, "127.0.0.1", 0) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, b"hello")
                assert await asyncio.wait_for(loop.sock_recv(sock, 5), 30) == b"hello"
        assert engine_for(asyncio.get_running_loop()).loop is asyncio.get_running_loop()
        engine_for(asyncio.get_running_loop()).close()

    for _ in range(10):
        in_threads(loop_factory, [once, once])
