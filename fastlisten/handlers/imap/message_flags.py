r"""Flags between the protocol, which has names such as \Seen, and the store, which has bits.

Rules of this file: values only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from fastlisten.handlers.imap.engine.strings import write_flags
from fastlisten.mail.store.interface import HAS_KEYWORDS, Flag, MessageState

__all__ = ["SYSTEM_FLAGS", "bit_of", "has_flag", "split_flags", "written_flags", "written_forms"]

_BITS = {
    "\\Answered": Flag.ANSWERED,
    "\\Flagged": Flag.FLAGGED,
    "\\Deleted": Flag.DELETED,
    "\\Seen": Flag.SEEN,
    "\\Draft": Flag.DRAFT,
}

#: The names of all system flags that clients can set.
SYSTEM_FLAGS = tuple(_BITS)

#: Combinations of flags and keywords whose written form is kept. A mailbox has some dozens.
_KEPT = 1024


def split_flags(names: Iterable[str]) -> tuple[Flag, tuple[str, ...]]:
    """Return the system flags and the keywords among some flags."""
    flags = Flag(0)
    keywords = []
    for name in names:
        bit = _BITS.get(name)
        if bit is None:
            keywords.append(name)
        else:
            flags |= bit
    return flags, tuple(keywords)


def has_flag(state: MessageState, name: str) -> bool:
    """Return whether a message has a flag or keyword; case does not matter in keywords."""
    bit = _BITS.get(name)
    if bit is not None:
        return bool(state.flags & bit)
    wanted = name.lower()
    return any(keyword.lower() == wanted for keyword in state.keywords)


def bit_of(name: str) -> Flag | None:
    """Return a system flag by its name; None if it is none."""
    return _BITS.get(name)


@functools.cache
def written_forms(*, recent: bool) -> list[bytes | None]:
    r"""Return how the system flags are written for each value of `Columns.flags`.

    Those that have keywords, and those that are gone, are None.

    Args:
        recent: the messages are ``\Recent``.
    """
    return [_written(bits, (), recent) for bits in range(HAS_KEYWORDS)]


def written_flags(state: MessageState, *, recent: bool) -> bytes:
    r"""Return the flags of a message as they are written, without parentheses.

    Args:
        state: of the message.
        recent: it is ``\Recent``.
    """
    return _written(state.flags.value, state.keywords, recent)


@functools.lru_cache(maxsize=_KEPT)
def _written(bits: int, keywords: tuple[str, ...], recent: bool) -> bytes:
    names = [name for name, bit in _BITS.items() if bits & bit]
    return write_flags([*names, *keywords, *(["\\Recent"] if recent else [])])
