"""Places in the shared arena with several processes that race for them and that are killed.

Rules of this file: no event loop. The limit is checked with a pipe that holds one token per place:
a process that has taken a place must find a token, and the kernel hands out each token once.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.forked import children

import fastlisten
from fastlisten._arena import Arena, Places

pytestmark = pytest.mark.usefixtures("descriptors_back")


def take_all(places: Places) -> int:
    """Take all free places; return how many there were."""
    count = 0
    while places.take():
        count += 1
    return count


def give_all(places: Places) -> None:
    """Give all places back."""
    while places.held:
        places.give()


ATTACHING = """
import os, socket, sys
import fastlisten
from fastlisten._arena import Arena
channel = socket.socket(fileno=int(sys.argv[1]))
_, fds, _, _ = socket.recv_fds(channel, 1, 16)
arena = Arena.attach(fds[0], fds[1:])
member = arena.join()
places = arena.places(1, member)
while places.take():
    pass
channel.send(bytes([arena.rows, arena.members, member, places.held]))
channel.recv(1)
places.give()
channel.send(b"given")
channel.recv(1)
"""


def test_attach_in_an_unrelated_process() -> None:
    arena = Arena(3, 4)
    arena.places(1, 0).limit = 5
    ours, theirs = socket.socketpair()
    mine = arena.places(1, arena.join())
    assert mine.take()
    command = [sys.executable, "-c", ATTACHING, str(theirs.fileno())]
    root = Path(fastlisten.__file__).parent.parent
    with ours, theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=root) as process:
        try:
            ours.settimeout(20)
            socket.send_fds(ours, [b"x"], [arena.fd, *arena.wakeups])
            assert ours.recv(4) == bytes([3, 4, 1, 4])
            assert arena.pids() == (os.getpid(), process.pid, 0, 0)
            assert not mine.take()
            ours.send(b"x")
            assert ours.recv(5) == b"given"
            assert [mine.take(), mine.take()] == [True, False]
        finally:
            process.kill()
    assert mine.count == 5
    assert arena.heal(1) == 3
    assert mine.count == mine.held == 2


def racing(arena: Arena, limit: int, tokens: tuple[int, int]) -> Callable[[socket.socket], None]:
    """Return the body of a child that takes and gives places in a tight loop for half a second."""
    read_end, write_end = tokens

    def body(channel: socket.socket) -> None:
        member = arena.join()
        places = arena.places(0, member)
        rng = random.Random(member)
        taken = refused = 0
        channel.send(b"0")
        channel.recv(1)
        end = time.monotonic() + 0.5
        # Whoever had no luck meanwhile gets its places when the others have finished.
        while time.monotonic() < end or taken <= 100:
            for _ in range(rng.randint(1, max(1, limit * 2 // 3))):
                if places.take():
                    taken += 1
                    try:
                        os.read(read_end, 1)
                    except BlockingIOError:
                        raise AssertionError(f"more than {limit} places are held") from None
                else:
                    refused += 1
            while places.held:
                os.write(write_end, b"t")
                places.give()
        channel.send(f"[{taken}, {refused}]".encode())

    return body


@pytest.mark.parametrize("limit", [1, 3, 60])
def test_limit_holds_with_four_racing_processes(limit: int) -> None:
    arena = Arena(1, 5)
    mine = arena.places(0, arena.join())
    mine.limit = limit
    tokens = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(tokens[1], b"t" * limit)
    keep = [arena.fd, *arena.wakeups, *tokens]
    with children(4, racing(arena, limit, tokens), keep) as racers:
        for child in racers:
            child.channel.send(b"x")
        results = [child.hear() for child in racers]
        assert [child.stop() for child in racers] == [0] * 4
    for fd in tokens:
        os.close(fd)
    assert all(taken > 100 for taken, _ in results), results
    assert sum(refused for _, refused in results) > 0, results
    assert mine.count == 0
    assert take_all(mine) == limit


def test_no_refusal_while_places_are_free() -> None:
    # Four processes that hold at most one place each: four places are always enough.
    arena = Arena(1, 4)
    arena.places(0, 0).limit = 4
    keep = [arena.fd, *arena.wakeups]

    def body(channel: socket.socket) -> None:
        places = arena.places(0, arena.join())
        channel.send(b"0")
        channel.recv(1)
        end = time.monotonic() + 0.5
        refused = count = 0
        while time.monotonic() < end:
            count += 1
            if places.take():
                places.give()
            else:
                refused += 1
        channel.send(f"[{count}, {refused}]".encode())

    with children(4, body, keep) as racers:
        for child in racers:
            child.channel.send(b"x")
        results = [child.hear() for child in racers]
    assert all(count > 100 for count, _ in results)
    assert sum(refused for _, refused in results) == 0


def test_killed_processes_lose_no_places() -> None:
    arena = Arena(2, 3)
    mine = [arena.places(listener, 0) for listener in range(2)]
    assert arena.join() == 0
    mine[0].limit, mine[1].limit = 1, 9
    keep = [arena.fd, *arena.wakeups]
    rng = random.Random(5)

    def body(channel: socket.socket) -> None:
        member = arena.join()
        places = [arena.places(listener, member) for listener in range(2)]
        channel.send(b"0")
        while True:
            for one in places:
                for _ in range(6):
                    one.take()
            for one in places:
                give_all(one)

    healed = 0
    for _ in range(50):
        with children(2, body, keep) as pair:
            time.sleep(rng.uniform(0, 0.004))
            members = [arena.pids().index(child.pid) for child in pair]
            for child, member in zip(pair, members, strict=True):
                child.kill()
                assert child.stop() == -signal.SIGKILL
                healed += arena.heal(member)
        assert arena.pids() == (os.getpid(), 0, 0)
        assert [one.count for one in mine] == [0, 0]
        assert [take_all(one) for one in mine] == [1, 9]
        for one in mine:
            give_all(one)
    assert healed > 0
