"""What is told of messages that were expunged before (RFC 7162 3.2.5, 3.2.6): VANISHED (EARLIER).

Rules of this file: the arithmetic of UIDs. A message that the session still counts is not said to
be gone: it will be, by its number's place, with the next command that may say so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from fastlisten.handlers.imap.engine.message_responses import (
    vanished_ranges_response,
    vanished_response,
)
from fastlisten.handlers.imap.engine.sequence_sets import SequenceSet
from fastlisten.handlers.imap.message_sets import place_of, places_of
from fastlisten.mail.store.interface import Changes

__all__ = ["vanished_earlier"]

#: All messages.
ALL = SequenceSet(((1, 0xFFFFFFFF),))


def vanished_earlier(
    changes: Changes, uids: Sequence[int], messages: SequenceSet | None, saved: Sequence[int] = ()
) -> bytes:
    """Return the response; nothing if no message is gone.

    Args:
        changes: since the modification sequence that the client knows.
        uids: what the session sees, ascending.
        messages: UIDs that the client asks for; None for all.
        saved: UIDs that ``$`` stands for.
    """
    wanted = messages or ALL
    if changes.complete:
        gone = changes.gone
        places = places_of(wanted, gone, saved, uid=True)
        return vanished_response(
            [gone[place] for one in places for place in one if place_of(gone[place], uids) < 0],
            earlier=True,
        )
    # Nothing is known of that time: whatever is not there may have been.
    ranges = [(uid, uid) for uid in saved] if wanted.saved else wanted.within(changes.uidnext - 1)
    return vanished_ranges_response([gap for one in ranges for gap in _gaps(*one, uids)])


def _gaps(low: int, high: int, uids: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges between two UIDs, these included, in which no UID is."""
    found = []
    for place in range(bisect_left(uids, low), bisect_right(uids, high)):
        if uids[place] > low:
            found.append((low, uids[place] - 1))
        low = uids[place] + 1
    if low <= high:
        found.append((low, high))
    return found
