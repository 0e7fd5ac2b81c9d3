"""Several processes on the same listening socket: who accepts, and what if one of them hangs.

Rules of this file: real processes. Judged is what the clients are served and how many connections
each process holds or has accepted; nothing is timed.
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
from support.listener import Echo, bound_socket, listening
from support.loops import LOOPS
from support.waiting import until

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"


def on_duty(server: ConnectionServer) -> bool:
    return engine_for(server.get_loop()).on_duty


def pause(server: Any) -> bool:
    """Let the listener of a process stop accepting."""
    for acceptor in server._acceptors:
        acceptor.pause()
    return True


COMMANDS = {"on duty": on_duty, "pause": pause}


class Group:
    """Processes that share a listening socket and the load, and the arena in which they do so."""

    def __init__(self, stack: contextlib.ExitStack, size: int) -> None:
        self.stack = stack
        self.sock = stack.enter_context(bound_socket())
        self.arena = Arena(1, size + 1)
        self.workers: list[Child] = []
        for _ in range(size):
            self.open()
        self.clients: list[socket.socket] = []

    def open(self) -> Child:
        """Start one more process."""

        async def start() -> ConnectionServer:
            member = self.arena.join()
            engine_for(asyncio.get_running_loop()).share_load(self.arena, member)
            return await create_server(
                Echo,
                sock=self.sock,
                backlog=4096,
                max_connections=self.arena.places(0, member),
                greeting=GREETING,
                lazy=True,
            )

        keep = [self.sock.fileno(), self.arena.fd, *self.arena.wakeups]
        loop_factory = list(LOOPS.values())[len(self.workers) % 2]
        worker = self.stack.enter_context(Child(serving(loop_factory, start, COMMANDS), keep))
        assert worker.hear() == "ready"
        self.workers.append(worker)
        return worker

    def connect(self) -> socket.socket:
        return self.stack.enter_context(socket.create_connection(self.sock.getsockname(), 20))

    def serve(self, count: int) -> None:
        """Connect clients one after the other; each must be greeted before the next one comes."""
        for _ in range(count):
            client = self.connect()
            assert client.recv(100) == GREETING
            self.clients.append(client)

    def serve_together(self, count: int) -> None:
        """Connect clients all at once."""
        clients = [self.connect() for _ in range(count)]
        for client in clients:
            assert client.recv(100) == GREETING
        self.clients += clients

    def leave(self) -> None:
        """Close all connections, and wait until every process has noticed."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        until(lambda: not any(self.held()), "the processes to notice")

    def held(self) -> list[int]:
        return [int(worker.ask("connections")) for worker in self.workers]

    def accepted(self) -> list[int]:
        return [int(worker.ask("statistics")["accepted"]) for worker in self.workers]

    def duties(self) -> list[bool]:
        return [bool(worker.ask("on duty")) for worker in self.workers]

    def on_duty(self) -> list[Child]:
        """Return who is on duty once somebody is: it may just be handed over."""
        found: list[Child] = []

        def somebody() -> bool:
            pairs = zip(self.workers, self.duties(), strict=True)
            found[:] = [worker for worker, duty in pairs if duty]
            return bool(found)

        until(somebody, "a process on duty")
        return found


@contextlib.contextmanager
def group(size: int) -> Iterator[Group]:
    with contextlib.ExitStack() as stack:
        yield Group(stack, size)


def run_long_connections(size: int, clients: int) -> None:
    """Let clients come that stay: no process may get more than 1.2 times its share.

    Half of them come at once. What a process has got too many of them then, because the others had
    no processor, it gets less of the rest.
    """
    with group(size) as made:
        made.serve_together(clients // 2)
        made.serve(clients - clients // 2)
        held = made.held()
        assert sum(held) == clients
        assert max(held) <= 1.2 * clients / size, held


def test_long_connections_are_spread() -> None:
    run_long_connections(4, 400)


@pytest.mark.soak
@pytest.mark.parametrize(("size", "clients"), [(4, 1000), (4, 4000), (16, 4000)])
def test_many_long_connections_are_spread(size: int, clients: int) -> None:
    run_long_connections(size, clients)


def test_short_connections_are_spread() -> None:
    with group(4) as made:
        for _ in range(60):
            made.serve(5)
            made.serve_together(15)
            made.leave()
        accepted = made.accepted()
        assert sum(accepted) == 1200
        assert min(accepted) >= 1200 // 4 // 4, accepted


def test_few_processes_are_on_duty() -> None:
    with group(6) as made:
        made.serve(60)
        assert max(made.held()) <= 20

        def few() -> bool:
            # Whoever is one too many leaves with its next connection.
            made.serve(1)
            return 1 <= sum(made.duties()) <= 2

        until(few, "two of six to be on duty")


def test_new_process_gets_what_others_have_more() -> None:
    with group(3) as made:
        made.serve(60)
        made.open()
        for _ in range(20):
            made.serve(5)
            *old, new = made.held()
            if new >= 0.7 * min(old):
                return
        # With an equal share of the newcomers it would have 25, and the others 45.
        raise AssertionError(f"after 100 clients the new one has {new}, the others have {old}")


def test_stopped_process_stalls_no_client() -> None:
    with group(4) as made:
        made.serve(8)
        stopped = made.on_duty()
        for worker in stopped:
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            made.serve(30)
        finally:
            for worker in stopped:
                os.kill(worker.pid, signal.SIGCONT)
        assert sum(made.held()) == 38
        # Now those that were stopped have much less load than the others.
        made.serve(60)
        assert max(made.held()) <= 1.2 * 98 / 4, made.held()


def test_last_running_process_accepts() -> None:
    with group(4) as made:
        made.serve(4)
        for worker in made.workers[1:]:
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            made.serve(30)
            made.serve_together(30)
            assert int(made.workers[0].ask("connections")) >= 60
        finally:
            for worker in made.workers[1:]:
                os.kill(worker.pid, signal.SIGCONT)


def test_others_take_over_from_a_paused_process() -> None:
    with group(4) as made:
        made.serve(8)
        for worker in made.workers[:3]:
            assert worker.ask("pause")
            made.serve(10)
        # The last one is on duty alone, or has found out that nobody else is.
        until(lambda: made.duties()[3], "the last one to be on duty")


def test_others_take_over_from_a_killed_process() -> None:
    with group(4) as made:
        for _ in range(3):
            made.serve(8)
            worker = made.on_duty()[0]
            worker.kill()
            made.workers.remove(worker)
            made.arena.heal_process(worker.pid)
        made.serve(20)
        assert made.workers[0].ask("connections") >= 20


def test_load_is_published() -> None:
    with group(3) as made:
        made.serve(30)
        # Recent accepts count, too, and are forgotten soon.
        until(lambda: sum(made.arena.loads()) == 30, "recent accepts to be forgotten")
        assert sorted(made.arena.loads())[1:] == sorted(made.held())
        made.leave()
        until(lambda: sum(made.arena.loads()) == 0, "the end of the connections")


def test_load_is_shared_before_anything_listens() -> None:
    async def main() -> None:
        arena, another = Arena(1, 2), Arena(1, 2)
        async with listening() as listener:
            with pytest.raises(RuntimeError, match="an acceptor is listening already"):
                listener.engine.share_load(arena, arena.join())
            listener.acceptor.pause()
            listener.engine.share_load(arena, 0)
            listener.engine.share_load(arena, 0)
            with pytest.raises(RuntimeError, match="in another arena"):
                listener.engine.share_load(another, 0)
            with pytest.raises(ValueError, match="member must be 0 to 1, not 2"):
                listener.engine.share_load(arena, 2)
            listener.acceptor.resume()
            client = await listener.connect()
            await client.send(b"x")
            assert await client.read() == b"x"
            client.close()

    asyncio.run(main())


def test_single_member_has_no_set_of_its_own() -> None:
    async def main() -> None:
        arena = Arena(1, 1)
        async with listening(start=False) as listener:
            before = listener.engine.census()["system"]
            listener.engine.share_load(arena, arena.join())
            assert listener.engine.census()["system"] == before
            assert not listener.engine.on_duty

    asyncio.run(main())
