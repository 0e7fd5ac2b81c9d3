"""The lines that say what a server serves: one for each listener, and its handlers' notes.

Rules of this file: it makes text, and event and fields as in log_events.py. The caller prints them,
as text or JSON.
"""

from __future__ import annotations

import resource
from collections.abc import Collection, Iterator

from fastlisten.config import ListenerSettings
from fastlisten.runtime.listener import Listener
from fastlisten.runtime.worker import Worker

__all__ = ["listening_lines"]

Line = tuple[str, str, dict[str, object]]


def listening_lines(worker: Worker, ids: Collection[str] | None = None) -> Iterator[Line]:
    """Yield text, event and fields: a line per listener, then one for each note of a handler.

    Args:
        worker: accepts.
        ids: of the listeners to include; None: all.
    """
    notes: dict[str, list[str]] = {}  # with the listeners that each is about
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for (settings, handler), listener in zip(worker.handlers, worker.listeners, strict=True):
        if ids is not None and settings.id not in ids:
            continue
        yield _line(settings, listener, most)
        for note in handler.notes():
            notes.setdefault(note, []).append(settings.id)
    for note, ids in notes.items():
        names = ", ".join(f'"{id}"' for id in ids)
        line = f"listener{'' if len(ids) == 1 else 's'} {names}: {note}"
        yield line, "listener-note", {"listener": ", ".join(ids)}


def _line(settings: ListenerSettings, listener: Listener, most: int) -> Line:
    addresses = [bound.address for bound in listener.sockets]
    limit, action = settings["max-connections"], settings["limit-action"]
    line = (
        f'listener "{settings.id}": {settings.protocol} on {", ".join(addresses) or "nothing"}; '
        f"max-connections {limit}, then {action}"
    )
    needed = limit + len(listener.sockets)
    if most != resource.RLIM_INFINITY and needed > most:
        line += f"; needs up to {needed} descriptors, this process may have {most}"
    fields: dict[str, object] = {
        "listener": settings.id,
        "protocol": settings.protocol,
        "addresses": addresses,
        "limit": limit,
    }
    return line, "listening", fields
