"""The flags in the name of a Maildir file, as letters and as bits.

Rules of this file: text in, numbers out, and back. The system flags have the bits of
`interface.Flag`. Every other letter has a bit too, so that what other programs have written (P for
passed on, Dovecot's a to z for keywords) stays in the name when flags change.
"""

from __future__ import annotations

import string
from functools import lru_cache

from fastlisten.mail.store.interface import Flag

__all__ = ["SYSTEM", "bits_of", "letters_of"]

_SYSTEM = {
    "S": Flag.SEEN,
    "R": Flag.ANSWERED,
    "F": Flag.FLAGGED,
    "T": Flag.DELETED,
    "D": Flag.DRAFT,
}

#: The bits of all system flags.
SYSTEM = sum(_SYSTEM.values())

_BITS = {letter: int(flag) for letter, flag in _SYSTEM.items()}
for _letter in string.ascii_letters:
    _BITS.setdefault(_letter, 1 << len(_BITS))


@lru_cache(maxsize=4096)
def bits_of(letters: str) -> int:
    """Return the bits of the letters after ``:2,``; what is no letter of ASCII has none."""
    bits = 0
    for letter in letters:
        bits |= _BITS.get(letter, 0)
    return bits


@lru_cache(maxsize=4096)
def letters_of(bits: int) -> str:
    """Return the letters of bits, in alphabetical order, as the format asks for."""
    return "".join(sorted(letter for letter, bit in _BITS.items() if bits & bit))
