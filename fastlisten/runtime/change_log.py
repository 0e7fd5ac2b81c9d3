"""The log of what was requested of a running server.

Rules of this file: one line per change, written by the process that a request reaches; with several
workers by the supervisor, and not by every worker again.
"""

from __future__ import annotations

import logging
from typing import Literal

from fastlisten.log_events import log

__all__ = ["Change", "log_change"]

logger = logging.getLogger("fastlisten")

#: What can be changed.
Change = Literal["paused", "resumed", "drained", "limit"]


def log_change(change: Change, id: str, by: str, limit: int = 0, before: int = 0) -> None:
    """Log a change.

    Args:
        change: what was done.
        id: the listener.
        by: who requested it.
        limit: the new limit.
        before: the old one.
    """
    if change == "paused":
        text = 'listener "%s": paused by %s'
        log(logger, logging.INFO, "listener-paused", text, id, by, listener=id, by=by)
    elif change == "resumed":
        text = 'listener "%s": resumed by %s'
        log(logger, logging.INFO, "listener-resumed", text, id, by, listener=id, by=by)
    elif change == "drained":
        text = 'listener "%s": draining, requested by %s'
        log(logger, logging.INFO, "listener-draining", text, id, by, listener=id, by=by)
    else:
        text = 'listener "%s": max-connections set to %d by %s, was %d'
        fields: dict[str, object] = {"listener": id, "limit": limit, "by": by}
        log(logger, logging.INFO, "limit-changed", text, id, limit, by, before, **fields)
