"""Rows of the shared arena come and go while processes use it, and a member is healed by its pid.

Rules of this file: no event loop. What another process must see is asked of a real one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys

import pytest
from support.forked import Child

from fastlisten._arena import MAX_MEMBERS, MAX_ROWS, Arena

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_appended_rows_leave_the_others_in_their_place() -> None:
    arena = Arena(1, 4)
    first = arena.places(0, arena.join())
    first.limit = 2
    assert first.take()
    # More than a page of them: the memory has to grow.
    rows = [arena.add_row(limit) for limit in range(1, 101)]
    assert rows == list(range(1, 101))
    assert arena.rows == 101
    for row in rows:
        places = arena.places(row, 3)
        assert places.limit == row
        assert [places.take() for _ in range(row)] == [True] * row
        assert not places.take()
    assert (first.limit, first.count) == (2, 1)
    assert arena.heal(3) == sum(rows)


def test_retired_row_is_used_again_when_its_places_are_given_back() -> None:
    arena = Arena(3, 2)
    old, other = arena.places(1, 0), arena.places(1, 1)
    old.limit = 5
    assert old.take()
    assert other.take()
    arena.retire_row(1)
    assert arena.add_row(7) == 3
    old.give()
    assert arena.add_row(8) == 4
    other.give()
    assert arena.add_row(9) == 1
    assert arena.places(1, 0).limit == 9
    assert [arena.places(row, 0).limit for row in (0, 2, 3, 4)] == [0, 0, 7, 8]


def test_retired_row_is_used_again_when_its_process_has_died() -> None:
    arena = Arena(1, 2)
    assert arena.places(0, 1).take()
    arena.retire_row(0)
    assert arena.add_row() == 1
    arena.heal(1)
    assert arena.add_row() == 0


def test_running_process_uses_a_row_that_was_appended_later() -> None:
    arena = Arena(1, 2)
    keep = [arena.fd, *arena.wakeups]

    def body(channel: socket.socket) -> None:
        member = arena.join()
        channel.send(b"1")
        row = int(channel.recv(10))
        places = arena.places(row, member)
        taken = sum(places.take() for _ in range(9))
        channel.send(f"[{arena.rows}, {places.limit}, {taken}]".encode())
        channel.recv(1)

    with Child(body, keep) as child:
        child.hear()
        for _ in range(200):
            row = arena.add_row(3)
        child.channel.send(str(row).encode())
        assert child.hear() == [201, 3, 3]
        assert arena.places(200, 0).count == 3
        os.kill(child.pid, signal.SIGKILL)
        assert child.stop() == -signal.SIGKILL
        assert arena.pids()[0] == child.pid
        assert arena.heal_process(child.pid) == 3
    assert arena.pids() == (0, 0)
    assert arena.places(200, 0).count == 0


def test_process_that_never_joined_holds_nothing() -> None:
    arena = Arena(1, 2)
    assert arena.places(0, arena.join()).take()
    assert arena.heal_process(os.getpid() + 1) == 0
    assert arena.places(0, 0).count == 1
    assert arena.heal_process(os.getpid()) == 1


def test_memory_cannot_be_taken_away() -> None:
    arena = Arena(4, 1)
    size = os.fstat(arena.fd).st_size
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 64)
    with pytest.raises(PermissionError):
        fcntl.fcntl(arena.fd, 1033, 0x0008)  # F_ADD_SEALS, F_SEAL_WRITE
    assert os.fstat(arena.fd).st_size == size
    assert arena.places(3, 0).take()


def test_more_rows_than_are_mapped_are_not_believed() -> None:
    """A process with fewer privileges can write any number, and add to the memory."""
    arena = Arena(1, 1)
    first = os.fstat(arena.fd).st_size
    arena.add_row()
    row = os.fstat(arena.fd).st_size - first
    os.ftruncate(arena.fd, first + (MAX_ROWS + 8) * row)
    os.pwrite(arena.fd, (MAX_ROWS + 8).to_bytes(4, sys.byteorder), 12)
    assert arena.rows == MAX_ROWS
    with pytest.raises(ValueError, match=f"row must be 0 to {MAX_ROWS - 1}"):
        arena.places(MAX_ROWS, 0)


def test_room_for_rows_uses_no_memory() -> None:
    arena = Arena(1, MAX_MEMBERS)
    assert arena.places(0, 255).take()
    assert os.fstat(arena.fd).st_blocks * 512 <= 64 * 1024
