"""What callbacks do to other connections and to the server, in the middle of a batch of events.

Rules of this file: many connections become ready in one turn of the loop (the loop sleeps while
the clients act), so that events are pending while callbacks close, pause and reuse the connections
they are for. Where asyncio defines the outcome, it is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest
from support.loops import LoopFactory
from support.raw_client import RawClient
from support.world import Hook, Recorder, World, play, same_as_asyncio

from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


async def crowd(world: World, hooks: dict[str, Hook], size: int, **options: Any) -> list[RawClient]:
    """Serve, and return `size` clients that are connected and known to the server."""
    await world.serve(lambda: Recorder(world, hooks), **options)
    clients = [await world.connect() for _ in range(size)]
    await world.until("connection_made", size)
    return clients


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closing_other_connections_in_a_callback(loop_factory: LoopFactory, method: str) -> None:
    """The first to receive something ends all; input that has arrived for the others is dropped."""

    async def script(world: World) -> None:
        def end_all(protocol: Recorder, data: bytes) -> None:
            for transport in world.transports:
                getattr(transport, method)()

        clients = await crowd(world, {"data_received": end_all}, 20)
        for client in clients:
            client.sock.send(b"x")
        await world.until("connection_lost", 20)

    log = same_as_asyncio(script, loop_factory)
    assert [note[0] for note in log[20:]] == ["data_received"] + ["connection_lost"] * 20


def test_pausing_other_connections_in_a_callback(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        heard = set()

        def pause_others(protocol: Recorder, data: bytes) -> None:
            heard.add(protocol.transport)
            for transport in world.transports:
                if transport is not protocol.transport:
                    transport.pause_reading()

        clients = await crowd(world, {"data_received": pause_others}, 10)
        for client in clients:
            client.sock.send(b"x")
        await world.settle()
        world.note("received", world.count("data_received"))
        for count in range(2, 11):
            next(t for t in world.transports if t not in heard).resume_reading()
            await world.until("data_received", count)
            await world.settle()
            world.note("received", world.count("data_received"))

    log = same_as_asyncio(script, loop_factory)
    assert ("received", 1) in log


def test_pausing_and_resuming_others_in_one_callback(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        def pause_and_resume(protocol: Recorder, data: bytes) -> None:
            for transport in world.transports:
                transport.pause_reading()
                transport.resume_reading()

        clients = await crowd(world, {"data_received": pause_and_resume}, 10)
        for client in clients:
            client.sock.send(b"x")
        await world.until("data_received", 10)
        await world.settle()

    log = same_as_asyncio(script, loop_factory)
    assert sum(note[0] == "data_received" for note in log) == 10


def test_aborting_connections_just_accepted(loop_factory: LoopFactory) -> None:
    """connection_made of the first ends all clients, those without a protocol included."""

    async def script(world: World) -> None:
        server: Any = None
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: server.abort_clients()}
        server = await world.serve(lambda: Recorder(world, hooks))
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(world.address)) for _ in range(10)
            ]
            await world.until(lambda: server.statistics()["accepted"] == 10)
            await world.until(lambda: server.connections == 0)
            for client in clients:
                client.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
        world.note("balance", world.count("connection_made") - world.count("connection_lost"))
        counts = engine_for(world.loop).census()
        world.note("census", counts["open"], counts["accepted"], counts["endpoints"])

    log = play(script, loop_factory)
    assert log[-2:] == [("balance", 0), ("census", 0, 0, 0)]


def test_descriptor_reused_within_a_batch(loop_factory: LoopFactory) -> None:
    """Events of a connection that ended earlier in the batch don't reach the next user of its
    descriptor.

    Silent lazy connections end inside the batch; the callback of a speaking one opens sockets that
    get their descriptors and have unread input.
    """

    async def script(world: World) -> None:
        taken: list[socket.socket] = []
        before: set[int] = set()

        def take(protocol: Recorder, data: bytes) -> None:
            # The lowest free numbers come first: those of the connections that have just ended.
            for _ in range(20):
                ours, theirs = socket.socketpair()
                theirs.sendall(b"not for the engine")
                taken.extend((ours, theirs))

        server = await world.serve(lambda: Recorder(world, {"data_received": take}), lazy=True)
        clients = [await world.connect() for _ in range(40)]
        await world.until(lambda: server.connections == 40)
        before = {int(name) for name in os.listdir("/proc/self/fd")}
        for client in clients[:10] + clients[11:]:
            client.finish()
        clients[10].sock.send(b"now")
        await world.until(lambda: server.connections == 1)
        await world.settle()
        world.note("reused", len(before & {sock.fileno() for sock in taken}) > 0)
        for ours in taken[::2]:
            world.note("intact", ours.recv(100, socket.MSG_DONTWAIT))
        for sock in taken:
            sock.close()
        clients[10].close()
        await world.until("connection_lost")

    log = play(script, loop_factory)
    assert ("reused", True) in log
    assert {note[1] for note in log if note[0] == "intact"} == {b"not for the engine"}


def test_descriptor_accepted_again_within_a_turn(loop_factory: LoopFactory) -> None:
    """A connection that ends with its last byte frees its descriptor at once for the next one."""

    async def script(world: World) -> None:
        def bye(protocol: Recorder, data: bytes) -> None:
            protocol.transport.write(data * 40_000)
            protocol.transport.close()

        numbers: set[int] = set()

        def made(protocol: Recorder, transport: Any) -> None:
            numbers.add(transport.get_extra_info("socket").fileno())

        await world.serve(
            lambda: Recorder(world, {"data_received": bye, "connection_made": made}),
            send_buffer=8192,
        )
        for turn in range(8):
            clients = [await world.connect(receive_buffer=4096) for _ in range(8)]
            for i, client in enumerate(clients):
                await client.send(b"%d" % i)
            for i, client in enumerate(clients):
                data, end = await client.rest()
                assert data == b"%d" % i * 40_000, (turn, i)
                assert end == "eof"
        world.note("numbers", len(numbers) < 64)

    assert play(script, loop_factory)[-1] == ("numbers", True)


def test_transport_without_references_sends_its_data(loop_factory: LoopFactory) -> None:
    """Without the program's references it lives until its last byte is sent."""

    async def script(world: World) -> None:
        class Forgetful(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.write(bytes(100_000))
                transport.close()

        await world.serve(Forgetful, send_buffer=8192)
        for _ in range(10):
            client = await world.connect(receive_buffer=4096)
            world.note("client", await client.rest() == (bytes(100_000), "eof"))

    assert play(script, loop_factory) == [("client", True)] * 10


def test_connecting_to_the_own_server_in_a_callback(loop_factory: LoopFactory) -> None:
    """A protocol that is a client of its own server."""

    async def script(world: World) -> None:
        depth: list[socket.socket] = []

        def connect_again(protocol: Recorder, transport: Any) -> None:
            if len(depth) < 10:
                sock = socket.socket()
                sock.connect(world.address)
                depth.append(sock)

        await world.serve(lambda: Recorder(world, {"connection_made": connect_again}))
        await world.connect()
        await world.until("connection_made", 11)
        for sock in depth:
            sock.close()
        await world.until("connection_lost", 10)
        world.note("depth", len(depth))

    assert play(script, loop_factory)[-1] == ("depth", 10)


def test_replacing_the_server_in_a_callback(loop_factory: LoopFactory) -> None:
    """A callback closes the only server, and its task makes another on the same loop."""

    async def script(world: World) -> None:
        servers: list[Any] = []

        async def again() -> None:
            await servers[-1].wait_closed()
            servers.append(await world.serve(lambda: Recorder(world, hooks)))
            world.note("serving again")

        def lost(protocol: Recorder, exc: BaseException | None) -> None:
            servers[-1].close()
            tasks.append(world.loop.create_task(again()))

        tasks: list[Any] = []
        hooks: dict[str, Hook] = {"connection_lost": lost}
        servers.append(await world.serve(lambda: Recorder(world, hooks)))
        for count in range(1, 6):
            client = await world.connect()
            await client.send(b"x")
            client.close()
            await world.until("serving again", count)

    log = play(script, loop_factory)
    assert sum(note[0] == "connection_lost" for note in log) == 5


def test_slow_callback_does_not_starve_others(loop_factory: LoopFactory) -> None:
    """Work for which one turn has no time is done in the next, in full."""

    async def script(world: World) -> None:
        def slow(protocol: Recorder, data: bytes) -> None:
            end = world.loop.time() + 0.002
            while world.loop.time() < end:
                pass
            protocol.transport.write(data)

        clients = await crowd(world, {"data_received": slow}, 30)
        for client in clients:
            client.sock.send(b"x")
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            world.loop.call_soon(turn)

        turn()
        for client in clients:
            assert await client.receive(1) == b"x"
        turn = lambda: None  # noqa: E731
        world.note("turns between", turns >= 10)

    assert play(script, loop_factory)[-1] == ("turns between", True)
