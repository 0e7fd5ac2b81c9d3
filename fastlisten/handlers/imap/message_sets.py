"""Which messages a command names: from sets of numbers or UIDs to places in the mailbox.

Rules of this file: arithmetic on a session's UIDs. A place is a message number minus one: it stays
the same until the session's own `sync`. The sequence that `Folder.uids` returns may not: whoever
has waited for anything asks for it again. Work is proportional to what the client has written and
to what is found, never to what a range spans.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from fastlisten.handlers.imap.engine.sequence_sets import SequenceSet

__all__ = ["numbers_of", "place_of", "places_of", "slices_of", "uids_of"]


def place_of(uid: int, uids: Sequence[int]) -> int:
    """Return the place of a UID, -1 if it is not there."""
    place = bisect_left(uids, uid)
    return place if place < len(uids) and uids[place] == uid else -1


def numbers_of(those: Sequence[int], uids: Sequence[int]) -> list[int]:
    """Return the message numbers of UIDs, all of which are there; both ascending."""
    if len(those) == len(uids):
        return list(range(1, len(uids) + 1))
    if len(those) < len(uids) // 3:  # looking each up costs less
        found, number, before, count = [], 0, uids[0] - 1, len(uids)
        for uid in those:
            # As far from the one before as their UIDs are apart, unless some in between are gone.
            most = number + uid - before
            if most > count or uids[most - 1] != uid:
                most = bisect_left(uids, uid, number, min(count, most)) + 1
            number, before = most, uid
            found.append(number)
        return found
    wanted = set(those)
    return [number for number, uid in enumerate(uids, 1) if uid in wanted]


def places_of(
    messages: SequenceSet, uids: Sequence[int], saved: Iterable[int], *, uid: bool
) -> list[range]:
    """Return where the messages of a set are, ascending; those that are not there are left out.

    Args:
        messages: the set.
        uids: all UIDs, ascending.
        saved: the UIDs that ``$`` stands for, ascending.
        uid: the set names UIDs.
    """
    if messages.saved:
        return _runs(place for place in (place_of(one, uids) for one in saved) if place >= 0)
    if not uid:
        return [range(low - 1, high) for low, high in messages.within(len(uids))]
    found = []
    for low, high in messages.within(uids[-1] if uids else 0):
        start = bisect_left(uids, low)
        stop = bisect_right(uids, high, start)
        if start < stop:
            found.append(range(start, stop))
    return found


def _runs(places: Iterable[int]) -> list[range]:
    found: list[range] = []
    for place in places:
        if found and found[-1].stop == place:
            found[-1] = range(found[-1].start, place + 1)
        else:
            found.append(range(place, place + 1))
    return found


def uids_of(places: Iterable[range], uids: Sequence[int]) -> list[int]:
    """Return the UIDs at some places."""
    return [uid for one in places for uid in uids[one.start : one.stop]]


def slices_of(places: Iterable[range], size: int) -> Iterator[range]:
    """Yield the same places, at most `size` at a time."""
    for one in places:
        for start in range(one.start, one.stop, size):
            yield range(start, min(one.stop, start + size))
