"""What the log tells: the names of events and of their fields, and how a record gets them.

Rules of this file: it imports nothing of the package, so that every module can log by it. A record
has words for a person and, beside them, an event with fields for programs; who sets up logging
decides which of them is written (cli/logging_setup.py). Names are an interface, as those of metrics
are: `EVENTS` is the table of them, docs/logging.md says what they mean, and a test compares the two
with the calls.

What a peer can cause without end has a bound (`Throttle`), and what it said is cut (`shown`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import sys
from collections.abc import Callable

__all__ = [
    "EVENTS",
    "Throttle",
    "address_text",
    "event_record",
    "log",
    "log_fault",
    "new_session",
    "session_name",
    "shown",
]

_WHO = ("listener", "peer", "port", "session")

_MAIL = (*_WHO, "id", "from", "to", "user", "bytes", "duration")

#: The fields that the records of an event may have; empty ones are left out.
EVENTS: dict[str, tuple[str, ...]] = {
    # connections, told by the native core
    "connection-opened": ("listener", "peer", "port"),
    "connection-closed": ("listener", "peer", "port"),
    "connections-refused": ("listener", "peer", "port", "count", "limit"),
    "connections-timed-out": ("listener", "peer", "port", "count"),
    "handshakes-failed": ("listener", "peer", "port", "count"),
    "accept-failed": ("listener", "count", "error"),
    "accept-ended": ("listener", "error"),
    "descriptors-used-up": ("listener", "count"),
    "records-lost": ("count",),
    # sessions of mail
    "rejected": (
        *_WHO, "helo", "tls", "protocol", "user", "command", "from", "to", "reply", "reason"
    ),
    "rejections-omitted": ("listener", "reason", "count"),
    "session-ended": (
        *_WHO, "helo", "tls", "user", "duration", "bytes_received", "bytes_sent", "messages",
        "rejected", "reason",
    ),
    "sessions-omitted": ("listener", "reason", "count"),
    "dialogue": (*_WHO, "side", "line"),
    "login-succeeded": (*_WHO, "user"),
    "login-failed": (*_WHO, "user"),
    "logins-omitted": ("count",),
    "login-deferred": (*_WHO, "error"),
    "tls-failed": (*_WHO, "error"),
    "application-failed": ("listener", "peer", "port"),
    "http-request": ("listener", "peer", "port", "method", "target", "status", "bytes"),
    # messages
    "message-delivered": (*_MAIL, "relay", "reply"),
    "message-not-delivered": (*_MAIL, "relay", "error"),
    "message-refused-by-relay": (*_MAIL, "relay", "reply"),
    "message-in-circles": (*_MAIL, "count"),
    "relay-failed": ("relay", "error"),
    "relay-connected-again": ("relay", "error"),
    "relay-without-tls": ("relay", "reply"),
    "notice-not-sent": ("to", "error"),
    "internal-error": _WHO,
    # the server
    "listening": ("listener", "protocol", "addresses", "limit"),
    "listener-note": ("listener",),
    "configuration-warning": ("key", "value", "line", "error"),
    "configuration-error": ("key", "value", "line", "error"),
    "start-failed": ("listener", "address", "operation", "error"),
    "server-failed": ("error",),
    "signal-received": ("signal",),
    "server-draining": ("count", "timeout"),
    "server-stopped": (),
    "connections-cut": ("listener", "count"),
    "listener-paused": ("listener", "by"),
    "listener-resumed": ("listener", "by"),
    "listener-draining": ("listener", "by"),
    "listener-closed": ("listener",),
    "limit-changed": ("listener", "limit", "by"),
    "certificate-changed": (),
    "certificate-warning": ("error",),
    "certificate-error": ("key", "value", "line", "error"),
    "accounts-changed": ("file", "count"),
    "accounts-missing": ("file",),
    "accounts-error": ("file", "error"),
    "postmaster-missing": ("file", "user"),
}  # fmt: skip


def log(
    logger: logging.Logger,
    level: int,
    event: str,
    text: str,
    *values: object,
    **fields: object,
) -> None:
    """Log an event.

    Args:
        logger: of the module.
        level: as in `logging`.
        event: a key of `EVENTS`.
        text: for a person, with the places of `values` as in `logging`.
        values: what stands there.
        fields: for programs, by names that `EVENTS` has for the event; ``from`` is written
            ``from_``. None and empty texts are left out.
    """
    if logger.isEnabledFor(level):
        logger.handle(event_record(logger.name, level, event, text, values, fields))


def log_fault(
    logger: logging.Logger, event: str, text: str, *values: object, **fields: object
) -> None:
    """Log an error with the traceback of the exception that is being handled; as `log`."""
    record = event_record(logger.name, logging.ERROR, event, text, values, fields)
    record.exc_info = sys.exc_info()
    logger.handle(record)


def event_record(
    name: str,
    level: int,
    event: str,
    text: str,
    values: tuple[object, ...],
    fields: dict[str, object],
) -> logging.LogRecord:
    """Return the record of an event; as `log`, for a logger of that name."""
    # Not by logger.log: to find the line of the caller would cost as much as the rest.
    record = logging.LogRecord(name, level, event, 0, text, values, None)
    record.event = event
    record.fields = {name.rstrip("_"): value for name, value in fields.items()}
    return record


# --- what comes from a peer -----------------------------------------------------------------------

#: Characters of a text of the peer's that a line shows: a path of RFC 5321 (256) and more.
_SHOWN = 300


def shown(text: str) -> str:
    """Return a text of the peer's for a log: cut; it is made fit for a line where it is written."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def address_text(peer: str, port: int) -> str:
    """Return an address as Postfix writes it: ``[192.0.2.1]:25``; ``[unix]`` for a Unix socket."""
    return f"[{peer}]:{port}" if peer else "[unix]"


# --- sessions -------------------------------------------------------------------------------------


class _Sessions:
    """The names of sessions: what is before the hyphen is new for each process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.process = secrets.token_hex(3)
        self.next = itertools.count(1).__next__


_sessions = _Sessions()
os.register_at_fork(after_in_child=_sessions.begin)


def new_session() -> int:
    """Return the number of a session that begins."""
    return _sessions.next()


def session_name(number: int) -> str:
    """Return how a session is called in the log, from its number: ``5f2c1a-1b``."""
    return f"{_sessions.process}-{number:x}"


# --- bounds ---------------------------------------------------------------------------------------

#: Records of one kind that are written in `WINDOW`; the others are counted. A spammer that tries
#: names brings a hundred in a second, and a line has 250 octets: 220 MB a day at the very most.
MOST = 100

#: Seconds after which counting begins anew, and what was left out is told.
WINDOW = 10.0


class Throttle:
    """Bounds how many records of a kind are written. For one loop.

    Args:
        tell: called with a kind and how many of it were left out.
    """

    __slots__ = ("_counts", "_tell", "_timer")

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, kind: str) -> bool:
        """Count a record; whether it may be written.

        Args:
            kind: one of a set that no peer can make larger.
        """
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._timer is None:
            # Without a loop (it has been closed, with connections open) nothing begins anew.
            with contextlib.suppress(RuntimeError):
                self._timer = asyncio.get_running_loop().call_later(WINDOW, self.close)
        return count <= MOST

    def close(self) -> None:
        """Tell what was left out, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        for kind, count in counts.items():
            if count > MOST:
                self._tell(kind, count - MOST)
