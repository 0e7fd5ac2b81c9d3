"""Files that have arrived in a folder, in the order in which they get UIDs.

Rules of this file: memory only. A million names are no exception: they are kept as strings, sorted
some at a time and merged, and freed on the way, so that other threads are not kept waiting (sorting
a million at once stalls them for 1.7 s).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator

from fastlisten.mail.store.files import Found

__all__ = ["Arrivals", "arrival_order"]

#: Names that are sorted at once: 3 ms.
_CHUNK = 2_000

#: What a number begins with in a sort key, by how many digits it has: names are of 255 at most.
_LENGTHS = [f"\0{length:03}" for length in range(256)]

_NUMBERS = re.compile(r"([0-9]+)")


def arrival_order(name: str) -> bytes:
    """Return a sort key of a file's name: its numbers count as numbers.

    Seconds come first in names, then microseconds, which are not padded (maildir(5)).
    """
    parts = _NUMBERS.split(name)
    for place in range(1, len(parts), 2):
        digits = parts[place].lstrip("0")
        # Below all letters, so that a part that is the beginning of another one is before it; a
        # number with fewer digits is smaller.
        parts[place] = _LENGTHS[len(digits)] + digits
    return "".join(parts).encode("utf-8", "surrogateescape")


class Arrivals:
    """Files, to be taken out once.

    Args:
        found: makes an object of a name and a place.
    """

    def __init__(self, found: Callable[[str, str], Found]) -> None:
        self._found = found
        self._chunks: list[list[tuple[bytes, str, str]]] = [[]]

    def add(self, name: str, place: str) -> None:
        """Add a file.

        Args:
            name: the message's.
            place: where it is (files.py).
        """
        chunk = self._chunks[-1]
        if len(chunk) == _CHUNK:
            self._chunks.append(chunk := [])
        chunk.append((arrival_order(name), name, place))

    def slices(self, size: int) -> Iterator[list[Found]]:
        """Yield all files in their order, some at a time."""
        chunks, self._chunks = self._chunks, [[]]
        for chunk in chunks:
            chunk.sort(reverse=True)
        files: list[Found] = []
        for _, name, place in heapq.merge(*map(_drained, chunks)):
            files.append(self._found(name, place))
            if len(files) == size:
                yield files
                files = []
        if files:
            yield files


def _drained(chunk: list[tuple[bytes, str, str]]) -> Iterator[tuple[bytes, str, str]]:
    while chunk:
        yield chunk.pop()
