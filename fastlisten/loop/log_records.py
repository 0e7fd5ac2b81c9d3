"""Log lines for the native core's records: refusals, timeouts, handshakes, connections.

Rules of this file: one call per batch of records, one line per record. The core has already
combined refusals, timeouts and failed handshakes per listener, so a flood makes a few lines per
second.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import TypeAlias

from fastlisten._core import (
    RECORD_BROKEN,
    RECORD_CAPACITY,
    RECORD_CLOSED,
    RECORD_HANDSHAKE,
    RECORD_OPENED,
    RECORD_OVERLOAD,
    RECORD_REFUSED,
    RECORD_TIMED_OUT,
    RECORD_TOTAL,
    Acceptor,
)
from fastlisten.log_events import address_text, log

__all__ = ["Record", "log_records"]

#: Kind, wall clock in seconds, acceptor (None: the whole engine), address, port, value, detail: an
#: errno, the limit that was reached, or 0.
Record: TypeAlias = tuple[int, float, Acceptor | None, str, int, int, int]

logger = logging.getLogger("fastlisten")


def _name(acceptor: Acceptor | None) -> str:
    if acceptor is None:
        return "listeners"
    if acceptor.listener is not None:
        return f'listener "{acceptor.listener}"'
    return "server"


def _times(value: int, what: str) -> str:
    return f"{value} {what}{'' if value == 1 else 's'}"


def _error(number: int) -> str:
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"


#: For each kind: level, event, a function that makes the text from peer, value and detail, and one
#: that makes the fields other than listener, peer and port.
_KINDS: dict[
    int,
    tuple[
        int,
        str,
        Callable[[str, int, int], str],
        Callable[[int, int], dict[str, object]],
    ],
] = {
    RECORD_OPENED: (
        logging.DEBUG,
        "connection-opened",
        lambda peer, value, number: f"connection from {peer}",
        lambda value, number: {},
    ),
    RECORD_CLOSED: (
        logging.DEBUG,
        "connection-closed",
        lambda peer, value, number: f"connection from {peer} closed",
        lambda value, number: {},
    ),
    RECORD_REFUSED: (
        logging.WARNING,
        "connections-refused",
        lambda peer, value, number: (
            f"refused {_times(value, 'connection')}, the first from {peer}: "
            f"max-connections = {number} reached"
        ),
        lambda value, number: {"count": value, "limit": number},
    ),
    RECORD_TOTAL: (
        logging.WARNING,
        "connections-refused",
        lambda peer, value, number: (
            f"refused {_times(value, 'connection')}, the first from {peer}: "
            "server.total-connections reached"
        ),
        lambda value, number: {"count": value},
    ),
    RECORD_TIMED_OUT: (
        logging.INFO,
        "connections-timed-out",
        lambda peer, value, number: (
            f"{_times(value, 'connection')} timed out, the first from {peer}"
        ),
        lambda value, number: {"count": value},
    ),
    # Not a warning: port scanners fail at handshakes all day long.
    RECORD_HANDSHAKE: (
        logging.INFO,
        "handshakes-failed",
        lambda peer, value, number: (
            f"{_times(value, 'TLS handshake')} failed, the first with {peer}"
        ),
        lambda value, number: {"count": value},
    ),
    RECORD_OVERLOAD: (
        logging.ERROR,
        "accept-failed",
        lambda peer, value, number: (
            f"accept failed {_times(value, 'time')} ({_error(number)}); "
            "pausing between attempts until descriptors and memory are free again"
        ),
        lambda value, number: {"count": value, "error": _error(number)},
    ),
    RECORD_CAPACITY: (
        logging.WARNING,
        "descriptors-used-up",
        lambda peer, value, number: (
            f"{value} connections are open, as many as the limit of open files (RLIMIT_NOFILE) "
            "allows; new clients wait in the backlog"
        ),
        lambda value, number: {"count": value},
    ),
    RECORD_BROKEN: (
        logging.ERROR,
        "accept-ended",
        lambda peer, value, number: (
            f"accept failed permanently ({_error(number)}); no longer listening"
        ),
        lambda value, number: {"error": _error(number)},
    ),
}

#: Kinds whose records have a peer's address and port.
_WITH_PEER = frozenset(
    {
        RECORD_OPENED,
        RECORD_CLOSED,
        RECORD_REFUSED,
        RECORD_TOTAL,
        RECORD_TIMED_OUT,
        RECORD_HANDSHAKE,
    }
)


def log_records(records: list[Record], dropped: int) -> None:
    """Write a batch of the core's records to the logger ``fastlisten``.

    Args:
        records: in chronological order.
        dropped: how many were lost because they came faster than they could be written.
    """
    for kind, _, acceptor, address, port, value, number in records:
        level, event, make_text, make_fields = _KINDS[kind]
        if logger.isEnabledFor(level):
            fields = make_fields(value, number)
            if acceptor is not None:
                fields["listener"] = acceptor.listener
            if kind in _WITH_PEER:
                fields |= {"peer": address, "port": port}
            text = make_text(address_text(address, port), value, number)
            log(logger, level, event, "%s: %s", _name(acceptor), text, **fields)
    if dropped:
        log(logger, logging.WARNING, "records-lost", "%d log records lost", dropped, count=dropped)
