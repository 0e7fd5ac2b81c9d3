"""What SEARCH looks for, as a tree (RFC 3501 6.4.4, RFC 5032, 7162, 8474).

Rules of this file: data only. Keys that mean the same are written in one way: UNSEEN is Not(Flag),
and several keys beside each other are And.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from fastlisten.handlers.imap.engine.sequence_sets import SequenceSet

__all__ = [
    "And",
    "Dated",
    "FieldText",
    "Flagged",
    "Identified",
    "ModSeq",
    "Not",
    "Numbered",
    "Or",
    "Recent",
    "SearchKey",
    "Sized",
    "Text",
    "Within",
]


@dataclass(frozen=True, slots=True)
class And:
    """All of these; none is ALL."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of these two."""

    first: SearchKey
    second: SearchKey


@dataclass(frozen=True, slots=True)
class Not:
    """Those without it."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class Flagged:
    """Those that have a flag or keyword."""

    flag: str


@dataclass(frozen=True, slots=True)
class Recent:
    r"""Those that are ``\\Recent``; NEW and OLD are made of it."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """Those of a set, of UIDs or of message numbers."""

    uid: bool
    messages: SequenceSet


@dataclass(frozen=True, slots=True)
class FieldText:
    """Those with a text in a header field; with an empty text, those that have the field.

    BCC, CC, FROM, SUBJECT and TO are written so too.
    """

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Those with a text in the body, or also in the header."""

    header: bool
    text: str


@dataclass(frozen=True, slots=True)
class Dated:
    """Those that came, or were written (`sent`), before, on or since a day."""

    sent: bool
    how: Literal["BEFORE", "ON", "SINCE"]
    day: date


@dataclass(frozen=True, slots=True)
class Within:
    """Those that came less (YOUNGER), or not less (OLDER), than some seconds ago (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class Sized:
    """Those that are larger, or smaller, than some octets."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class ModSeq:
    """Those with at least this modification sequence (RFC 7162 3.1.5).

    Attributes:
        modseq: the modification sequence.
        flag: of this flag alone, if given.
    """

    modseq: int
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Identified:
    """Those with this EMAILID or THREADID (RFC 8474)."""

    thread: bool
    id: str


SearchKey = (
    And
    | Or
    | Not
    | Flagged
    | Recent
    | Numbered
    | FieldText
    | Text
    | Dated
    | Within
    | Sized
    | ModSeq
    | Identified
)
