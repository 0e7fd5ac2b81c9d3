"""How many folders an account may have, how deep, and how many keywords a folder.

Rules of this file: data only; admission.py applies it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NO_BOUNDS", "Bounds"]


class Bounds(NamedTuple):
    """What an account may have; None: no limit.

    Attributes:
        folders: with INBOX.
        depth: levels of a folder's name.
        keywords: of one folder.
    """

    folders: int | None = None
    depth: int | None = None
    keywords: int | None = None


NO_BOUNDS = Bounds()
