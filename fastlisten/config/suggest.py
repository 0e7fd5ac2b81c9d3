"""Finds the key or word that was probably meant by an unknown one.

Rules of this file: pure functions of names. `likely` is lenient, because it only adds a suggestion
to an error; `near` is strict, because a match turns an ignored key into an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

__all__ = ["distance", "likely", "near"]

# Longer names are not compared, because that takes quadratic time.
_MAX_LENGTH = 64
# A name of at least this length may be the start of the one that was meant.
_MIN_PREFIX = 4


def distance(a: str, b: str, limit: int) -> int:
    """Return the edit distance: insertions, deletions, replacements and swaps of neighbours.

    Returns limit + 1 as soon as the distance must exceed the limit.
    """
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row, above = row, [i], before
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def _squash(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "").replace(" ", "")


def _allowance(name: str) -> int:
    return 1 if len(name) <= 5 else 2 if len(name) <= 10 else 3


@lru_cache(maxsize=1024)
def likely(name: str, candidates: tuple[str, ...]) -> str:
    """Return the candidate that was probably meant by a name, or an empty string.

    Compares without regard to case, hyphens and underscores, with the candidates and with their
    last parts: ``backlog`` is likely to mean ``socket.backlog``.

    Args:
        name: the unknown name.
        candidates: dotted keys, more important ones first.
    """
    if not name or len(name) > _MAX_LENGTH:
        return ""
    squashed = _squash(name)
    best, least = "", _allowance(squashed) + 1
    for candidate in candidates:
        last = candidate.rpartition(".")[2]
        for rank, text in ((0, candidate), (0, last), (1, candidate.replace(".", "-"))):
            other = _squash(text)
            found = distance(squashed, other, min(least, _allowance(other))) + rank
            if squashed == other:
                return candidate
            if found < least and found <= _allowance(other):
                best, least = candidate, found
    if not best and len(squashed) >= _MIN_PREFIX:
        return next((c for c in candidates if _squash(c).startswith(squashed)), "")
    return best


def near(name: str, candidates: Sequence[str]) -> str:
    """Return the candidate that a name is a misspelling of, or an empty string.

    A misspelling differs in case or separators, or by one edit (two in names of more than five
    letters); the candidate itself is none.
    """
    if not name or len(name) > _MAX_LENGTH or name in candidates:
        return ""
    for candidate in candidates:
        if _squash(candidate) == _squash(name):
            return candidate
        limit = min(1 if len(candidate) <= 5 else 2, len(candidate) // 3)
        if distance(name.lower(), candidate.lower(), limit) <= limit:
            return candidate
    return ""
