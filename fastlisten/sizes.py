"""Reads sizes as the configuration and the accounts file write them: ``"256KiB"``, ``10_000_000``.

Rules of this file: the notation only; what range a value may have is up to the key it belongs to.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse_size"]

_SIZE = re.compile(r"([0-9]{1,15}) ?([kKmMgG]i?)?([bB])?")
_FACTORS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
}


def parse_size(raw: Any) -> int:
    """Return a size in octets.

    Raises:
        ValueError: it is none.
    """
    if isinstance(raw, str) and (match := _SIZE.fullmatch(raw.strip())):
        return int(match[1]) * _FACTORS[(match[2] or "").lower()]
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError("this is not a size")
    return raw
