"""The event loop on uvloop, in a file of its own so that uvloop is imported only where it is used.

Rules of this file: the class and nothing else; its methods are in server_methods.py.
"""

from __future__ import annotations

import uvloop

from fastlisten.loop.server_methods import ServerMethods

__all__ = ["UvloopLoop"]


class UvloopLoop(ServerMethods, uvloop.Loop):  # type: ignore[misc]  # their stubs disagree
    """uvloop's loop with server-side connections on the core."""
