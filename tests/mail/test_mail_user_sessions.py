"""Sessions of a user are counted over processes by locks, which the kernel gives back.

Rules of this file: the other workers are forked processes that have inherited the file.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest
from support.forked import Child

from fastlisten.mail.user_sessions import UserSessions

MOST = 3
ALICE, BOB = "alice@example.org", "bob@example.org"


@pytest.fixture
def file() -> Iterator[int]:
    found = os.memfd_create("test", os.MFD_CLOEXEC)
    yield found
    os.close(found)


def worker(file: int) -> Child:
    """Return another process, which answers `take` and `give`."""

    def body(channel: socket.socket) -> None:
        sessions = UserSessions(file)
        while text := channel.recv(65536):
            command, user = json.loads(text)
            more = (MOST,) if command == "take" else ()
            answer = getattr(sessions, command)(user, *more)
            channel.send(json.dumps(answer).encode())

    return Child(body, keep=(file,))


def test_sessions_of_one_process(file: int) -> None:
    sessions = UserSessions(file)
    assert [sessions.take(ALICE, MOST) for _ in range(MOST + 1)] == [True] * MOST + [False]
    assert sessions.take(BOB, MOST)
    sessions.give(ALICE)
    assert sessions.take(ALICE, MOST)
    assert not sessions.take(ALICE, MOST)
    for _ in range(MOST + 1):  # one more than it has
        sessions.give(ALICE)
    assert [sessions.take(ALICE, MOST) for _ in range(MOST + 1)] == [True] * MOST + [False]


def test_sessions_of_all_processes(file: int) -> None:
    sessions = UserSessions(file)
    with worker(file) as one, worker(file) as other:
        assert one.ask("take", ALICE)
        assert sessions.take(ALICE, MOST)
        assert other.ask("take", ALICE)
        assert not sessions.take(ALICE, MOST)
        assert not one.ask("take", ALICE)
        assert one.ask("take", BOB)
        one.ask("give", ALICE)
        assert other.ask("take", ALICE)
        assert not one.ask("take", ALICE)
        sessions.give(ALICE)
        assert one.ask("take", ALICE)
        assert not sessions.take(ALICE, MOST)


def test_sessions_of_a_process_that_is_killed_are_free(file: int) -> None:
    sessions = UserSessions(file)
    with worker(file) as one:
        assert [one.ask("take", ALICE) for _ in range(MOST)] == [True] * MOST
        assert not sessions.take(ALICE, MOST)
        one.kill()
        assert [sessions.take(ALICE, MOST) for _ in range(MOST + 1)] == [True] * MOST + [False]


def test_one_process_needs_no_file() -> None:
    sessions = UserSessions()
    assert [sessions.take(ALICE, MOST) for _ in range(MOST + 1)] == [True] * MOST + [False]
    sessions.give(ALICE)
    assert sessions.take(ALICE, MOST)
    assert not sessions.take(ALICE, MOST)


def test_a_smaller_number_counts_those_that_are_there(file: int) -> None:
    """As after a reload."""
    sessions = UserSessions(file)
    assert [sessions.take(ALICE, MOST) for _ in range(MOST)] == [True] * MOST
    sessions.give(ALICE)
    assert not sessions.take(ALICE, MOST - 1)
    sessions.give(ALICE)
    assert sessions.take(ALICE, MOST - 1)
