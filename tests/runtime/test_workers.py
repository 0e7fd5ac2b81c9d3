"""Two workers with one plan, the same sockets and one arena share one limit.

Rules of this file: the test forks the workers as a supervisor would. Which of them serves a client
is decided by stopping the other one, never by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.forked import Body, Child
from support.waiting import PATIENCE, until

from fastlisten._arena import Arena
from fastlisten.config import loads
from fastlisten.runtime.listener import State
from fastlisten.runtime.local_control import LocalControl
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all
from fastlisten.runtime.worker import Worker

pytestmark = pytest.mark.usefixtures("descriptors_back")

LIMIT = 5

TEXT = f"""
[server]
shutdown-timeout = "1h"

[server.listener.other]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.serving_handlers:Echo"

[server.listener.shared]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.serving_handlers:Echo"
max-connections = {LIMIT}
"""


def worker_of(plan: Plan, number: int, sockets: list[BoundSocket], arena: Arena) -> Body:
    """Return the body of a forked worker: serve, answer for its counters, drain when told to."""

    async def serve(channel: socket.socket) -> None:
        worker = Worker(plan, number)
        control = LocalControl(worker)
        worker.make_handlers(control)
        await worker.start([bound.duplicate() for bound in sockets])
        worker.accept(arena, arena.join())
        channel.setblocking(False)
        loop = asyncio.get_running_loop()
        channel.send(json.dumps("ready").encode())
        while await loop.sock_recv(channel, 100) == b'["report"]':
            report = dataclasses.asdict(await control.report("shared"))
            workers = {number: one["accepted"] for number, one in report["workers"].items()}
            channel.send(json.dumps([report["held"], workers]).encode())
        worker.stop()
        await worker.run()
        await worker.shutdown()
        assert all(listener.state is State.CLOSED for listener in worker.listeners)

    return lambda channel: asyncio.run(serve(channel))


@dataclass
class Two:
    """Two running workers and what they share.

    Attributes:
        workers: the two.
        sockets: bound and listening.
        arena: with two members.
    """

    workers: tuple[Child, Child]
    sockets: list[BoundSocket]
    arena: Arena

    @property
    def taken(self) -> int:
        """Places taken on the shared listener, by both."""
        return self.arena.places(1, 0).count

    def client(self) -> socket.socket:
        """Return a client of the shared listener that has sent a byte."""
        client = socket.create_connection(("127.0.0.1", self.sockets[1].port), PATIENCE)
        client.sendall(b"x")
        return client

    def served(self, number: int, stack: contextlib.ExitStack) -> list[socket.socket]:
        """Connect until a client is refused; return the clients that one worker serves.

        The other worker is stopped meanwhile.
        """
        found: list[socket.socket] = []
        with stopped(self.workers[1 - number]):
            for _ in range(2 * LIMIT):
                client = stack.enter_context(self.client())
                said = client.recv(100)
                if said != b"x":
                    assert said == b"refused: limit\n"
                    return found
                found.append(client)
        raise AssertionError("nobody was refused")


@contextlib.contextmanager
def stopped(child: Child) -> Iterator[None]:
    """Stop a process while the block runs."""
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


@contextlib.contextmanager
def two_workers() -> Iterator[Two]:
    """Fork two workers; at the end of the block they are killed if they still run."""
    plan = Plan(loads(TEXT))
    sockets = plan.bind()
    with contextlib.ExitStack() as stack:
        stack.callback(close_all, sockets)
        listen_all(sockets)
        arena = plan.make_arena(members=2)
        keep = [arena.fd, *arena.wakeups, *(bound.sock.fileno() for bound in sockets)]
        workers = []
        for number in range(2):
            child = Child(worker_of(plan, number, sockets, arena), keep)
            stack.callback(child.kill)
            assert child.hear() == "ready"
            workers.append(child)
        yield Two((workers[0], workers[1]), sockets, arena)


def test_limit_is_shared_by_both_workers() -> None:
    with two_workers() as two, contextlib.ExitStack() as stack:
        first = two.served(0, stack)
        assert len(first) == LIMIT
        for client in first[:3]:
            client.close()
        until(lambda: two.taken == LIMIT - 3, "three places")
        # The other worker gets the places that the first one leaves, and no more.
        assert len(two.served(1, stack)) == 3
        assert two.taken == LIMIT
        # The places are those of both, the counters each worker's own.
        assert two.workers[0].ask("report") == [LIMIT, {"0": LIMIT}]
        assert two.workers[1].ask("report") == [LIMIT, {"1": 3}]


def test_killed_worker_frees_its_places() -> None:
    with two_workers() as two, contextlib.ExitStack() as stack:
        first = two.served(0, stack)
        first[0].close()
        until(lambda: two.taken == LIMIT - 1, "a place")
        assert len(two.served(1, stack)) == 1
        dead = two.arena.pids().index(two.workers[0].pid)
        two.workers[0].kill()
        assert two.taken == LIMIT
        assert two.arena.heal(dead) == LIMIT - 1
        more = [stack.enter_context(two.client()) for _ in range(LIMIT)]
        assert [client.recv(100) for client in more] == [b"x"] * 4 + [b"refused: limit\n"]


def test_ended_worker_leaves_the_sockets_open() -> None:
    with two_workers() as two:
        assert two.workers[0].stop() == 0
        with two.client() as client:
            assert client.recv(100) == b"x"
        assert two.workers[1].stop() == 0
        assert two.taken == 0


def test_unix_socket_file_stays_when_a_worker_ends(tmp_path: Path) -> None:
    path = tmp_path / "it"
    text = TEXT.partition("[server.listener.shared]")[0].replace("127.0.0.1:0", f"unix:{path}")
    (bound,) = Plan(loads(text)).bind()
    of_a_worker = bound.duplicate()
    of_a_worker.close()
    assert path.is_socket()
    bound.sock.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.close()
    assert not path.exists()
