"""The messages about a worker's life, on its channel.

    worker      ready     {}                     its handlers have started
    supervisor  accept    {"changes": {...}}     take connections now, except on paused listeners
    worker      serving   {"lines": [...]}       it does; what is served, for the first worker
    supervisor  stop      {"at_once": false}     drain and end; again with true: close everything
    worker      draining  {}                     somebody has sent it SIGTERM: it needs a successor

The messages of a reload are in reload_messages.py.

Rules of this file: names only. The supervisor checks what workers send.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ACCEPT", "DRAINING", "READY", "SERVING", "STOP"]

READY: Final = "ready"
ACCEPT: Final = "accept"
SERVING: Final = "serving"
STOP: Final = "stop"
DRAINING: Final = "draining"
