"""Places in the shared arena, as one process sees them: layout, counting, waking, healing.

Rules of this file: no event loop and no other process. The states that only a death at the wrong
instruction leaves behind are written into the arena's memory by hand.
"""

from __future__ import annotations

import mmap
import os
import struct

import pytest

from fastlisten._arena import ARENA_VERSION, MAX_MEMBERS, MAX_ROWS, Arena, Places

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Layout, version 2: a header, one record of a cache line per member, the notices, then the rows.
LINE = 64
NOTICES = 4096
WAITERS = 32
CELLS = 64


def small_arena() -> Arena:
    """Return an arena of three listeners and four members; listener 1 has five places."""
    arena = Arena(3, 4)
    arena.places(1, 0).limit = 5
    return arena


def memory(arena: Arena) -> mmap.mmap:
    """Return the arena's memory, as another program would see it."""
    return mmap.mmap(arena.fd, os.fstat(arena.fd).st_size)


def row_at(arena: Arena, view: mmap.mmap, listener: int) -> int:
    row_size = struct.unpack_from("5I", view)[4]
    return LINE + (arena.members + NOTICES) * LINE + listener * int(row_size)


def take_all(places: Places) -> int:
    """Take all free places; return how many there were."""
    count = 0
    while places.take():
        count += 1
    return count


def give_all(places: Places) -> None:
    while places.held:
        places.give()


def is_signalled(fd: int) -> bool:
    """Return whether an event descriptor was written to, and reset it."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return False
    return True


# --- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("listeners", "members"), [(1, 1), (3, 4), (2, 16), (2, 17), (7, 256)])
def test_memory_layout(listeners: int, members: int) -> None:
    arena = Arena(listeners, members)
    with memory(arena) as view:
        magic, version, columns, rows, row_size, notices = struct.unpack_from("6I", view)
        assert struct.pack(">I", magic) == b"fl1a"
        assert version == ARENA_VERSION == 2
        assert (columns, rows) == (members, listeners) == (arena.members, arena.rows)
        assert notices == NOTICES
        assert row_size % LINE == 0
        assert CELLS + 4 * members <= row_size < CELLS + 4 * members + LINE
        assert len(view) == LINE + (members + NOTICES) * LINE + listeners * row_size
        assert len(arena.wakeups) == members == len(set(arena.wakeups))
        for listener in range(listeners):
            places = arena.places(listener, members - 1)
            places.limit = 1000 + listener
            for _ in range(listener + 1):
                assert places.take()
        for listener in range(listeners):
            row = row_at(arena, view, listener)
            assert struct.unpack_from("I", view, row) == (1000 + listener,)
            cells = struct.unpack_from(f"{members}I", view, row + CELLS)
            assert cells == (0,) * (members - 1) + (listener + 1,)


def test_join_records_the_process_id() -> None:
    arena = small_arena()
    assert [arena.join(), arena.join()] == [0, 1]
    assert arena.pids() == (os.getpid(), os.getpid(), 0, 0)
    with memory(arena) as view:
        assert struct.unpack_from("I", view, LINE + LINE) == (os.getpid(),)


def test_out_of_range_arguments_are_rejected() -> None:
    arena = small_arena()
    for rows in (0, MAX_ROWS + 1):
        with pytest.raises(ValueError, match=f"1 to {MAX_ROWS}, not {rows}"):
            Arena(rows)
    for members in (0, MAX_MEMBERS + 1):
        with pytest.raises(ValueError, match=f"1 to 256, not {members}"):
            Arena(1, members)
    for row in (-1, 3):
        with pytest.raises(ValueError, match=f"row must be 0 to 2, not {row}"):
            arena.places(row, 0)
        with pytest.raises(ValueError, match=f"row must be 0 to 2, not {row}"):
            arena.retire_row(row)
    for member in (-1, 4):
        with pytest.raises(ValueError, match=f"member must be 0 to 3, not {member}"):
            arena.places(0, member)
        with pytest.raises(ValueError, match=f"member must be 0 to 3, not {member}"):
            arena.heal(member)
        with pytest.raises(ValueError, match=f"member must be 0 to 3, not {member}"):
            arena.beat(member)


def test_join_fails_when_the_arena_is_full() -> None:
    arena = small_arena()
    assert [arena.join() for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="full: it has 4 members"):
        arena.join()
    arena.heal(2)
    assert arena.pids()[2] == 0
    assert arena.join() == 2


# --- one process ------------------------------------------------------------------------------


def test_take_up_to_the_limit_and_give_back() -> None:
    arena = small_arena()
    mine, other = arena.places(1, 0), arena.places(1, 3)
    assert [other.take(), other.take()] == [True, True]
    assert take_all(mine) == 3
    assert not other.take()
    assert (mine.held, other.held, mine.count, other.count) == (3, 2, 5, 5)
    mine.give()
    assert other.take()
    assert not mine.take()
    give_all(mine)
    give_all(other)
    assert mine.count == 0
    assert take_all(other) == 5


def test_giving_a_place_not_held_is_an_error() -> None:
    arena = small_arena()
    mine, other = arena.places(1, 0), arena.places(1, 1)
    assert other.take()
    with pytest.raises(ValueError, match="holds no place"):
        mine.give()
    assert mine.count == 1


def test_limit_of_zero_is_unlimited() -> None:
    arena = small_arena()
    places = arena.places(0, 0)
    assert places.limit == 0
    assert all(places.take() for _ in range(10_000))
    assert places.count == 10_000


def test_limit_changes_while_places_are_held() -> None:
    arena = small_arena()
    mine, other = arena.places(1, 0), arena.places(1, 1)
    assert take_all(mine) == 5
    other.limit = 7
    assert mine.limit == 7
    assert take_all(other) == 2
    mine.limit = 3
    give_all(other)
    assert not other.take()
    for _ in range(3):
        mine.give()
    assert [other.take(), other.take()] == [True, False]


def test_listeners_have_separate_limits() -> None:
    arena = small_arena()
    first, second = arena.places(1, 0), arena.places(2, 0)
    second.limit = 1
    assert (take_all(first), take_all(second)) == (5, 1)
    give_all(first)
    assert (first.count, second.count) == (0, 1)


def test_arena_in_a_reference_cycle_closes_its_descriptors() -> None:
    # The fixture of this file checks them.
    cycle: list[object] = [small_arena()]
    cycle.append(cycle)


def test_heal_releases_a_members_places_in_all_listeners() -> None:
    arena = small_arena()
    for listener in range(3):
        for member in (0, 1):
            places = arena.places(listener, member)
            for _ in range(listener):
                assert places.take()
    assert arena.heal(1) == 3
    assert arena.heal(1) == 0
    assert [arena.places(n, 1).held for n in range(3)] == [0, 0, 0]
    assert [arena.places(n, 0).held for n in range(3)] == [0, 1, 2]


# --- waking whoever waits ---------------------------------------------------------------------


@pytest.mark.parametrize("sleeper", [0, 63, 64, 255])
@pytest.mark.parametrize("how", ["give", "limit"])
def test_giving_back_wakes_only_waiting_members(sleeper: int, how: str) -> None:
    arena = Arena(2, 256)
    places = arena.places(1, 7)
    places.limit = 1
    assert places.take()
    with memory(arena) as view:
        word = row_at(arena, view, 1) + WAITERS + sleeper // 64 * 8
        struct.pack_into("Q", view, word, 1 << sleeper % 64)
        if how == "give":
            places.give()
        else:
            places.limit = 2
        assert struct.unpack_from("4Q", view, row_at(arena, view, 1) + WAITERS) == (0, 0, 0, 0)
    assert [n for n, fd in enumerate(arena.wakeups) if is_signalled(fd)] == [sleeper]


def test_heal_wakes_waiters_after_death_during_give() -> None:
    # Killed after it lowered its counter: in one case before it read who waits, in the other
    # before it woke all of them.
    for noted in (False, True):
        arena = Arena(2, 4)
        dead, waiter = arena.join(), arena.join()
        with memory(arena) as view:
            if not noted:
                struct.pack_into("Q", view, row_at(arena, view, 1) + WAITERS, 1 << waiter)
        assert arena.heal(dead) == 0
        assert is_signalled(arena.wakeups[waiter]), noted


def test_heal_removes_dead_waiters() -> None:
    arena = small_arena()
    dead = arena.join()
    places = arena.places(1, 1)
    assert places.take()
    with memory(arena) as view:
        word = row_at(arena, view, 1) + WAITERS
        struct.pack_into("Q", view, word, 1 << dead)
        arena.heal(dead)
        is_signalled(arena.wakeups[dead])
        assert struct.unpack_from("Q", view, word) == (0,)
    places.give()
    assert not is_signalled(arena.wakeups[dead])


# --- attaching --------------------------------------------------------------------------------


def head(version: int, members: int, rows: int, row_size: int, size: int) -> bytes:
    """Return what an arena begins with, filled up to a size."""
    fields = (0x666C3161, version, members, rows, row_size, 0, 0)
    return struct.pack("<7I", *fields).ljust(size, b"\0")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "too small"),
        (bytes(4096), "not an arena"),
        (head(1, 1, 1, 128, 4096), "an arena of version 1, not 2"),
        (head(2, 1, 1, 128, 255), "size"),
        (head(2, 1, 9, 64, 4096), "size"),
        (head(2, 257, 1, 1152, 65536), "size"),
        (head(2, 2, 1, 128, 4096), "2 wake-up descriptors"),
    ],
)
def test_attach_rejects_invalid_memory(text: bytes, complaint: str) -> None:
    fd, wakeup = os.memfd_create("no-arena"), os.eventfd(0)
    os.write(fd, text)
    with pytest.raises(ValueError, match=complaint):
        Arena.attach(fd, (wakeup,))
    os.close(fd)  # still the caller's
    os.close(wakeup)
