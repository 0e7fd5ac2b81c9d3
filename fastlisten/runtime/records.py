"""Log lines for what the native core noticed: refusals, timeouts, handshakes, connections.

Rules of this file: one call per batch of records, one line per record; the core has already
counted refusals, timeouts and failed handshakes together per listener, so that a flood makes a
few lines a second.
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
    Acceptor,
)

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


def _peer(address: str, port: int) -> str:
    if not address:
        return "a Unix socket"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


_LINES: dict[int, tuple[int, Callable[[str, str, Acceptor | None, int, int], str]]] = {
    RECORD_OPENED: (
        logging.DEBUG,
        lambda name, peer, acceptor, value, number: f"{name}: connection from {peer}",
    ),
    RECORD_CLOSED: (
        logging.DEBUG,
        lambda name, peer, acceptor, value, number: f"{name}: connection from {peer} closed",
    ),
    RECORD_REFUSED: (
        logging.WARNING,
        lambda name, peer, acceptor, value, number: (
            f"{name}: refused {value} connection{'' if value == 1 else 's'}, "
            f"the first from {peer}: "
            f"max-connections = {number} reached"
        ),
    ),
    RECORD_TIMED_OUT: (
        logging.INFO,
        lambda name, peer, acceptor, value, number: (
            f"{name}: closed {value} connection{'' if value == 1 else 's'} for silence, "
            f"the first from {peer}"
        ),
    ),
    # Whoever scans the net fails at them all day long: worth a line, no cause for alarm.
    RECORD_HANDSHAKE: (
        logging.INFO,
        lambda name, peer, acceptor, value, number: (
            f"{name}: {value} TLS handshake{'' if value == 1 else 's'} failed, "
            f"the first with {peer}"
        ),
    ),
    RECORD_OVERLOAD: (
        logging.ERROR,
        lambda name, peer, acceptor, value, number: (
            f"{name}: accepting failed {value} time{'' if value == 1 else 's'} "
            f"({errno.errorcode.get(number, number)}: {os.strerror(number)}); "
            "pausing between attempts until descriptors and memory are free again"
        ),
    ),
    RECORD_CAPACITY: (
        logging.WARNING,
        lambda name, peer, acceptor, value, number: (
            f"{name}: this process holds {value} connections, all that its limit of open files "
            "(RLIMIT_NOFILE) allows; new clients wait in the backlog"
        ),
    ),
    RECORD_BROKEN: (
        logging.ERROR,
        lambda name, peer, acceptor, value, number: (
            f"{name}: accept failed for good "
            f"({errno.errorcode.get(number, number)}: {os.strerror(number)}); no longer listening"
        ),
    ),
}


def log_records(records: list[Record], dropped: int) -> None:
    """Write a batch of the core's records to the logger ``fastlisten``.

    Args:
        records: in order of time.
        dropped: how many were lost because they came faster than they could be written.
    """
    for kind, _, acceptor, address, port, value, number in records:
        level, line = _LINES[kind]
        if logger.isEnabledFor(level):
            logger.log(
                level, "%s", line(_name(acceptor), _peer(address, port), acceptor, value, number)
            )
    if dropped:
        logger.warning("%d log records lost", dropped)
