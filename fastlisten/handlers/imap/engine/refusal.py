"""The exception for commands that are not carried out.

Rules of this file: only this exception, which every part of the engine raises.
"""

from __future__ import annotations

__all__ = ["Refused"]

_LONGEST = 100


class Refused(Exception):  # noqa: N818 - a verdict on the client's command, not a fault of ours
    """A command that is not carried out.

    Args:
        text: what is said to the client; the end is left out if it is long, because it may repeat
            what the client has written.
        status: ``BAD`` for wrong syntax or a command that is not allowed now, else ``NO``.
        code: the response code, without brackets; empty for none.

    Attributes:
        unsaved: as in `Refusal`.
    """

    def __init__(self, text: str, status: str = "BAD", code: str = "") -> None:
        super().__init__(text)
        self.text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        self.status = status
        self.code = code
        self.unsaved = False
