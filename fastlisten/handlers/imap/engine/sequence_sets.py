"""Sets of message numbers or UIDs: 1,5:9,20:* and $ (RFC 3501 9, RFC 5182).

Rules of this file: parsing, writing, and the arithmetic of ranges. Nothing here takes time or
memory for the numbers that a range names, only for what the client has written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner

__all__ = ["SAVED", "STAR", "SequenceSet", "parse_set", "parse_uids", "write_set"]

#: What ``*`` is while nobody knows the largest number: larger than all of them.
STAR = 1 << 32

_ITEM = rb"(?:\*|[1-9][0-9]{0,9}+)(?::(?:\*|[1-9][0-9]{0,9}+))?"
_SET = re.compile(rb"%b(?:,%b)*+(?=[ )]|\Z)" % (_ITEM, _ITEM))
_INVALID = "Invalid messageset"


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A set as the client wrote it.

    Attributes:
        ranges: first and last of each range, in the client's order; `STAR` is ``*``.
        saved: it is ``$``, the result of an earlier SEARCH.
    """

    ranges: tuple[tuple[int, int], ...]
    saved: bool = False

    def within(self, largest: int) -> list[tuple[int, int]]:
        """Return the ranges in order, not overlapping nor touching, without what cannot be there.

        Args:
            largest: the largest number or UID in use, which ``*`` stands for; 0 if there is none.
        """
        if not largest:
            return []
        found = []
        for first, last in self.ranges:
            low, high = (first, last) if first <= last else (last, first)
            if low == STAR or (high == STAR and low > largest):
                # RFC 3501 6.4.8: 3291:* names the last message even if that is 3290.
                low = largest
            if low <= largest:
                found.append((low, min(high, largest)))
        if len(found) < 2:
            return found
        found.sort()
        merged = [found[0]]
        for low, high in found:
            start, end = merged[-1]
            if low > end + 1:
                merged.append((low, high))
            elif high > end:
                merged[-1] = (start, high)
        return merged

    def exceeds(self, largest: int) -> bool:
        """Return whether a number is named that is larger than the largest message number.

        RFC 3501 9: seq-number must be in use. ``*`` is the largest itself.
        """
        return any(largest < number != STAR for bounds in self.ranges for number in bounds) or not (
            largest or self.saved
        )


#: ``$``
SAVED = SequenceSet((), saved=True)

_ALL = SequenceSet(((1, STAR),))


def parse_set(scanner: Scanner) -> SequenceSet:
    """Read a sequence-set.

    Raises:
        Refused: there is none, or it names 0 or a number above 2^32 - 1.
    """
    if scanner.skip(b"$"):
        return SAVED
    match = scanner.match(_SET)
    if match is None:
        raise Refused(_INVALID)
    text = match[0]
    if text == b"1:*":
        return _ALL
    if len(text) < 10 and text.isdigit():
        number = int(text)
        return SequenceSet(((number, number),))
    ranges = []
    for item in text.split(b","):
        first, colon, last = item.partition(b":")
        low = STAR if first == b"*" else int(first)
        high = low if not colon else STAR if last == b"*" else int(last)
        if (low >= STAR and first != b"*") or (high >= STAR and (last or first) != b"*"):
            raise Refused(_INVALID)
        ranges.append((low, high))
    return SequenceSet(tuple(ranges))


def parse_uids(scanner: Scanner) -> SequenceSet:
    """Read a set without ``*`` and ``$``, as QRESYNC's known UIDs are (RFC 7162 7).

    Raises:
        Refused: there is none, or it has one of these.
    """
    found = parse_set(scanner)
    if found.saved or any(STAR in bounds for bounds in found.ranges):
        raise Refused("Expected a set of numbers without * and $")
    return found


def write_set(numbers: Iterable[int]) -> bytes:
    """Return a set of numbers as it is written, as ranges where they follow each other.

    Args:
        numbers: in ascending order, without repetitions.
    """
    parts = []
    first = last = 0
    for number in numbers:
        if number == last + 1 and first:
            last = number
            continue
        if first:
            parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
        first = last = number
    if first:
        parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
    return b",".join(parts)
