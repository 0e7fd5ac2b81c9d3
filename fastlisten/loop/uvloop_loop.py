"""The event loop on uvloop, in a separate file so that uvloop is imported only if it is used.

Rules of this file: only the class; its methods are in server_methods.py.
"""

from __future__ import annotations

import uvloop

from fastlisten.loop.server_methods import ServerMethods

__all__ = ["UvloopLoop"]


class UvloopLoop(ServerMethods, uvloop.Loop):  # type: ignore[misc]  # their stubs disagree
    """uvloop's loop with server-side connections on the core."""
