"""The total of all listeners and their reserves, as places of the arena count them.

Rules of this file: no event loop. That the total is never exceeded is checked with a pipe that
holds one token per place: a process that has taken a place must find a token.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time

import pytest
from support.forked import children

from fastlisten._arena import Arena, Places

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Rows: two listeners, what they share, and their reserves.
MAIL, WEB, SHARED, MAIL_RESERVE, WEB_RESERVE = range(5)


def arena_of(total: int, web_reserve: int, members: int = 1) -> Arena:
    """Return an arena in which only the second listener has a reserve."""
    arena = Arena(5, members)
    arena.places(SHARED, 0).limit = total - web_reserve
    arena.places(WEB_RESERVE, 0).limit = web_reserve
    return arena


def listeners(arena: Arena, member: int) -> tuple[Places, Places]:
    """Return the places of both listeners, as a member sees them."""
    mail, web = arena.places(MAIL, member), arena.places(WEB, member)
    mail.count_total(SHARED, MAIL_RESERVE)
    web.count_total(SHARED, WEB_RESERVE)
    return mail, web


def held(arena: Arena) -> tuple[int, int]:
    """Return how many shared places are held, and how many of the second listener's reserve."""
    return arena.places(SHARED, 0).count, arena.places(WEB_RESERVE, 0).count


def take(places: Places, most: int) -> int:
    """Take up to so many places; return how many it got."""
    return sum(places.take() for _ in range(most))


def test_reserve_is_kept_for_its_listener() -> None:
    arena = arena_of(10, 3)
    mail, web = listeners(arena, 0)
    assert take(mail, 20) == 7
    assert held(arena) == (7, 0)
    assert take(web, 20) == 3
    assert held(arena) == (7, 3)
    assert (mail.count, web.count) == (7, 3)


def test_listener_with_a_reserve_shares_the_rest() -> None:
    arena = arena_of(10, 3)
    mail, web = listeners(arena, 0)
    assert take(web, 5) == 5
    assert held(arena) == (2, 3)
    assert take(mail, 20) == 5
    assert not web.take()
    assert (mail.count, web.count) == (5, 5)


def test_shared_places_are_given_back_first() -> None:
    arena = arena_of(10, 3)
    mail, web = listeners(arena, 0)
    assert take(web, 5) == 5
    left = []
    while web.held:
        web.give()
        left.append(held(arena))
    assert left == [(1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]
    assert take(mail, 20) == 7


def test_own_limit_is_checked_before_the_total() -> None:
    arena = arena_of(10, 3)
    mail, web = listeners(arena, 0)
    web.limit = 4
    assert take(web, 20) == 4
    assert held(arena) == (1, 3)
    mail.limit = 2
    assert take(mail, 20) == 2
    assert held(arena) == (3, 3)


def test_failed_take_holds_nothing() -> None:
    arena = arena_of(2, 1)
    mail, web = listeners(arena, 0)
    mail.limit = web.limit = 9
    assert (take(web, 9), take(mail, 9)) == (2, 0)
    assert (web.count, mail.count, held(arena)) == (2, 0, (1, 1))


def test_failed_take_wakes_who_found_the_listener_full() -> None:
    arena = arena_of(2, 1, members=2)
    mail, web = listeners(arena, 0)
    assert take(web, 2) == 2
    # Another member has found the listener full, because it looked while the place was taken.
    waiters = 64 + (2 + 4096) * 64 + MAIL * 128 + 32
    os.pwrite(arena.fd, (1 << 1).to_bytes(8, "little"), waiters)
    assert not mail.take()
    assert os.eventfd_read(arena.wakeups[1]) == 1


def test_reserve_may_be_set_while_the_server_runs() -> None:
    arena = arena_of(10, 0)
    mail, web = listeners(arena, 0)
    assert take(web, 4) == 4
    arena.places(SHARED, 0).limit = 8
    arena.places(WEB_RESERVE, 0).limit = 2
    assert (take(mail, 20), take(web, 20)) == (4, 2)
    assert held(arena) == (8, 2)
    arena.places(WEB_RESERVE, 0).limit = 0
    while web.held:
        web.give()
    assert held(arena) == (4, 0)
    assert not arena.places(WEB_RESERVE, 0).count
    assert take(web, 20) == 4


def test_new_reserve_gets_what_others_give_back() -> None:
    arena = arena_of(10, 0)
    mail, web = listeners(arena, 0)
    assert take(mail, 20) == 10
    # A reload has added the second listener. What the first one has, it keeps.
    arena.places(SHARED, 0).limit = 7
    arena.places(WEB_RESERVE, 0).limit = 3
    got = []
    for _ in range(4):
        got.append(take(web, 20))
        assert mail.count + web.count == 10
        mail.give()
    assert got == [0, 1, 1, 1]
    assert held(arena) == (6, 3)
    assert (take(web, 20), held(arena)) == (1, (7, 3))


def test_total_holds_with_four_racing_processes() -> None:
    total = 12
    arena = arena_of(total, 4, members=5)
    tokens = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(tokens[1], b"t" * total)

    def body(channel: socket.socket) -> None:
        mine = listeners(arena, arena.join())
        rng = random.Random(mine[0].member)
        taken = refused = 0
        channel.send(b"0")
        channel.recv(1)
        end = time.monotonic() + 0.5
        # Whoever had no luck meanwhile gets its places when the others have finished.
        while time.monotonic() < end or taken <= 100:
            for _ in range(rng.randint(1, total)):
                if rng.choice(mine).take():
                    taken += 1
                    try:
                        os.read(tokens[0], 1)
                    except BlockingIOError:
                        raise AssertionError(f"more than {total} places are held") from None
                else:
                    refused += 1
            for one in mine:
                while one.held:
                    os.write(tokens[1], b"t")
                    one.give()
        channel.send(f"[{taken}, {refused}]".encode())

    arena.join()
    with children(4, body, [arena.fd, *arena.wakeups, *tokens]) as racers:
        for child in racers:
            child.channel.send(b"x")
        results = [child.hear() for child in racers]
        assert [child.stop() for child in racers] == [0] * 4
    for fd in tokens:
        os.close(fd)
    assert all(taken > 100 for taken, _ in results), results
    assert sum(refused for _, refused in results) > 0, results
    assert held(arena) == (0, 0)


def test_killed_processes_lose_no_places_of_the_total() -> None:
    arena = arena_of(9, 2, members=3)
    arena.join()
    mail, web = listeners(arena, 0)
    rng = random.Random(7)

    def body(channel: socket.socket) -> None:
        mine = listeners(arena, arena.join())
        channel.send(b"0")
        while True:
            for one in mine:
                take(one, 6)
            for one in mine:
                while one.held:
                    one.give()

    healed = 0
    for _ in range(30):
        with children(2, body, [arena.fd, *arena.wakeups]) as pair:
            time.sleep(rng.uniform(0, 0.004))
            for child in pair:
                child.kill()
                assert child.stop() == -signal.SIGKILL
                healed += arena.heal_process(child.pid)
        assert held(arena) == (0, 0)
        assert (take(mail, 20), take(web, 20)) == (7, 2)
        for one in (mail, web):
            while one.held:
                one.give()
    assert healed > 0
