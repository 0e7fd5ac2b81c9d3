"""Two processes that take the last place at the same time, one of them instruction by instruction.

Rules of this file: what happens between two instructions of the child is done by the test, so that
each race is decided in the same way every time.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from support.arena_memory import set_cell
from support.forked import Child, children
from support.steps import Steps

from fastlisten._arena import Arena, Places

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Racer:
    """A child that takes and gives back places, as it is told.

    Attributes:
        places: those of the test's process; `theirs`: those of the child.
    """

    def __init__(self, arena: Arena, places: Places, child: Child) -> None:
        self.arena = arena
        self.places = places
        self.theirs = arena.places(0, 1)
        self.steps = Steps(child)
        self._child = child

    def begin_to_take(self) -> None:
        """Stop the child just before it is told to take a place."""
        self.steps.stop()
        self._child.channel.send(b"t")

    def result(self) -> bool:
        """Let the child run; return whether it got its place."""
        self.steps.go_on()
        return bool(self._child.hear())

    def give(self) -> None:
        """Let the child give its place back."""
        self._child.channel.send(b"g")
        self._child.hear()


@contextlib.contextmanager
def racer() -> Iterator[Racer]:
    """Start a child that shares one place with the test."""
    arena = Arena(1, 2)
    places = arena.places(0, arena.join())
    places.limit = 1

    def body(channel: socket.socket) -> None:
        own = arena.places(0, arena.join())
        channel.send(b"0")
        while word := channel.recv(1):
            if word == b"t":
                channel.send(b"true" if own.take() else b"false")
            else:
                own.give()
                channel.send(b"null")

    with children(1, body, [arena.fd, *arena.wakeups]) as [child]:
        yield Racer(arena, places, child)


def test_only_one_of_two_gets_the_last_place() -> None:
    with racer() as other:
        other.begin_to_take()
        announcing = other.steps.until(lambda: other.theirs.held)
        # It has announced, so that the test comes too late.
        assert not other.places.take()
        assert other.result()
        other.give()
        # It is about to announce, so that the test comes first, whatever it has looked at before.
        other.begin_to_take()
        other.steps.until_before(announcing)
        assert other.theirs.held == 0
        assert other.places.take()
        assert not other.result()
        assert (other.places.held, other.theirs.held) == (1, 0)


def test_one_of_two_that_withdraw_tries_again() -> None:
    with racer() as other:
        other.begin_to_take()
        other.steps.until(lambda: other.theirs.held)
        set_cell(other.arena, 0, 0, 1)
        # It finds that two have announced, and withdraws. So does the test.
        other.steps.until(lambda: other.theirs.held == 0)
        set_cell(other.arena, 0, 0, 0)
        assert other.result()
        assert (other.places.held, other.theirs.held) == (0, 1)
