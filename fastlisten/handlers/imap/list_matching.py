"""Names of mailboxes and the patterns of LIST and LSUB (RFC 3501 6.3.8).

Rules of this file: text only. The time that a pattern takes grows with its length and the name's,
whatever wildcards it has; that for many names is bounded by whoever asks.
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
    texts = dict.fromkeys(_joined(pattern) for pattern in composed)
    if "*" in texts:
        return lambda name: True
    prepared = [_Pattern(text) for text in texts]
    inbox = any(_Pattern(text.upper()).matches("INBOX") for text in texts)

    def matches(name: str) -> bool:
        return any(pattern.matches(name) for pattern in prepared) or (inbox and name == "INBOX")

    return matches


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


class _Pattern:
    """A pattern, followed along all ways at once: the places of a way are bits of a number."""

    __slots__ = ("_any", "_end", "_least", "_levels", "_masks", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._masks: dict[str, int] = {}  # by character: the places where it stands
        self._any = 0  # the places of wildcards; no two are side by side
        self._levels = 0  # those of wildcards that stand for several levels
        self._end = 1 << len(text)
        self._least = len(text) - text.count("*") - text.count("%")

    def matches(self, name: str) -> bool:
        """Return whether a name matches."""
        # The places of a pattern that no name can match are not even looked for: it may be long.
        if len(name) < self._least:
            return False
        if not (self._masks or self._any):
            self._prepare()
        masks, wild, levels = self._masks, self._any, self._levels
        places = 1
        places |= (places & wild) << 1
        for character in name:
            stay = places & (levels if character == "/" else wild)
            places = (places & masks.get(character, 0)) << 1 | stay
            if not places:
                return False
            places |= (places & wild) << 1
        return bool(places & self._end)

    def _prepare(self) -> None:
        for place, character in enumerate(self._text):
            bit = 1 << place
            if character in "*%":
                self._any |= bit
                if character == "*":
                    self._levels |= bit
            else:
                self._masks[character] = self._masks.get(character, 0) | bit
