"""The exception for commands that are not carried out.

Rules of this file: only this exception, which every part of the engine raises.
"""

from __future__ import annotations

from fastlisten.errors import PeerError
from fastlisten.handlers.smtp.engine.replies import reply

__all__ = ["Refused"]


class Refused(PeerError):  # noqa: N818 - a verdict on the peer's command, not a fault of ours
    """A command that is not carried out; `reply` says why to the client."""

    def __init__(self, code: int, status: str, text: str) -> None:
        super().__init__(text, reply(code, status, text))
