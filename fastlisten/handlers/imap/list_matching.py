"""Names of mailboxes and the patterns of LIST and LSUB (RFC 3501 6.3.8).

Rules of this file: text only. The time that a pattern takes is bounded by its length times the
name's, whatever wildcards it has.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

__all__ = ["matcher"]


def matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a function that tells whether a name matches one of some patterns.

    Args:
        patterns: ``*`` stands for anything, ``%`` for anything without ``/``.
    """
    # Names of the store are in this form, whichever the client has written.
    composed = (unicodedata.normalize("NFC", pattern) for pattern in patterns)
    prepared = [_joined(pattern) for pattern in dict.fromkeys(composed)]
    if "*" in prepared:
        return lambda name: True
    return lambda name: any(_matches(pattern, name) for pattern in prepared)


def _joined(pattern: str) -> str:
    """Return a pattern without wildcards that change nothing, and INBOX in capitals."""
    words: list[str] = []
    for character in pattern:
        if character in "*%" and words and words[-1] in "*%":
            if character == "*":
                words[-1] = "*"
        else:
            words.append(character)
    joined = "".join(words)
    # RFC 3501 5.1: INBOX in any case, also as the first level of a name.
    first, slash, rest = joined.partition("/")
    return f"INBOX{slash}{rest}" if first.upper() == "INBOX" else joined


def _matches(pattern: str, name: str) -> bool:
    if not ("*" in pattern or "%" in pattern):
        return pattern == name or (name == "INBOX" and pattern.upper() == "INBOX")
    if name == "INBOX" and _run(pattern.upper(), name):
        return True
    return _run(pattern, name)


def _run(pattern: str, name: str) -> bool:
    """Follow all ways through a pattern at once."""
    size = len(pattern)
    places = _closed({0}, pattern)
    for character in name:
        following = set()
        for place in places:
            if place == size:
                continue
            one = pattern[place]
            if one == "*" or (one == "%" and character != "/"):
                following.add(place)
            elif one == character and one != "%":
                following.add(place + 1)
        if not following:
            return False
        places = _closed(following, pattern)
    return size in places


def _closed(places: set[int], pattern: str) -> set[int]:
    """Add the places behind wildcards, which may stand for nothing."""
    for place in sorted(places):
        while place < len(pattern) and pattern[place] in "*%":
            place += 1
            places.add(place)
    return places
