"""The drop-in loop on uvloop: a file of its own, so that uvloop is imported only where it is used.

Rules of this file: the class and nothing else; what it does is `event_loop`'s.
"""

from __future__ import annotations

import uvloop

from fastlisten.loop.event_loop import ServerMethods

__all__ = ["UvloopLoop"]


class UvloopLoop(ServerMethods, uvloop.Loop):  # type: ignore[misc]  # their stubs disagree
    """uvloop's loop with server-side connections on the core."""
