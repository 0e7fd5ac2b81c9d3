"""The events that are logged, and log records for them.

Rules of this file: nothing of the package is imported, so every module can use it. A record has a
message for people and an event with fields for programs; cli/logging_setup.py decides which of
them is written. The names of events and fields are an interface, like those of metrics: `EVENTS` is
the table, docs/logging.md describes it, and a test compares the table, the page and the calls.

Records that a peer can cause without limit are throttled (log_throttle.py), and text that comes
from a peer is shortened (`shortened`).
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import sys

__all__ = [
    "EVENTS",
    "address_text",
    "event_record",
    "log",
    "log_fault",
    "new_session",
    "session_name",
    "shortened",
]

_PEER = ("listener", "peer", "port", "session")

_MAIL = (*_PEER, "id", "from", "to", "user", "bytes", "duration")

#: Events and the fields that their records can have; empty fields are omitted.
EVENTS: dict[str, tuple[str, ...]] = {
    # connections, recorded by the native core
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
        *_PEER, "helo", "tls", "protocol", "user", "command", "from", "to", "reply", "reason"
    ),
    "rejections-omitted": ("listener", "reason", "count"),
    "session-ended": (
        *_PEER, "helo", "tls", "user", "duration", "bytes_received", "bytes_sent", "messages",
        "rejected", "reason",
    ),
    "sessions-omitted": ("listener", "reason", "count"),
    "dialogue": (*_PEER, "side", "line"),
    "login-succeeded": (*_PEER, "user", "master"),
    "login-failed": (*_PEER, "user"),
    "logins-omitted": ("count",),
    "login-deferred": (*_PEER, "error"),
    "client-id": (*_PEER, "user", "id"),
    "ids-omitted": ("listener", "reason", "count"),
    "tls-failed": (*_PEER, "error"),
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
    "internal-error": _PEER,
    # the server
    "listening": ("listener", "protocol", "addresses", "limit"),
    "listener-note": ("listener",),
    "configuration-warning": ("key", "value", "line", "error"),
    "configuration-error": ("key", "value", "line", "error"),
    "start-failed": ("listener", "address", "operation", "error"),
    "server-failed": ("error",),
    "tasks-left": ("count", "error"),
    "signal-received": ("signal",),
    "worker-started": ("worker", "pid"),
    "worker-ended": ("worker", "pid", "signal", "code", "error"),
    "worker-waits": ("worker",),
    "worker-killed": ("worker", "pid", "error"),
    "worker-hung": ("worker", "pid"),
    "worker-back": ("worker", "pid"),
    "worker-given-up": ("worker", "code"),
    "restart-requested": ("by",),
    "restart-failed": ("worker",),
    "upgrade-requested": ("by",),
    "upgrade-failed": ("error",),
    "upgraded": (),
    "supervisor-gone": (),
    "server-draining": ("count", "timeout"),
    "server-stopped": (),
    "connections-cut": ("listener", "count"),
    "listener-paused": ("listener", "by"),
    "listener-resumed": ("listener", "by"),
    "listener-draining": ("listener", "by"),
    "listener-closed": ("listener",),
    "listener-removed": ("listener",),
    "limit-changed": ("listener", "limit", "by"),
    "reload-requested": ("by",),
    "no-control-socket": ("error",),
    "configuration-reloaded": ("file", "added", "removed", "changed", "restart"),
    "setting-changed": ("listener", "key", "value"),
    "restart-needed": ("listener", "key", "value"),
    "reload-failed": ("file", "error"),
    "not-notified": ("error",),
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
        text: the message for people, a format string as in `logging`.
        values: its arguments.
        fields: for programs, as listed in `EVENTS` for the event; pass ``from`` as ``from_``.
            None and empty strings are omitted.
    """
    if logger.isEnabledFor(level):
        logger.handle(event_record(logger.name, level, event, text, values, fields))


def log_fault(
    logger: logging.Logger, event: str, text: str, *values: object, **fields: object
) -> None:
    """Log an error as `log` does, with the traceback of the exception being handled."""
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
    """Return the record that `log` would give to a logger of this name."""
    # Not by logger.log, which finds the caller's line; that takes as long as everything else.
    record = logging.LogRecord(name, level, event, 0, text, values, None)
    record.event = event
    if "from_" in fields:
        fields = {"from" if key == "from_" else key: value for key, value in fields.items()}
    record.fields = fields
    return record


# --- what comes from a peer -----------------------------------------------------------------------

#: Maximum number of characters to log; a path has up to 256 (RFC 5321 4.5.3.1.3).
_MAX_LENGTH = 300


def shortened(text: str) -> str:
    """Return a peer's text, shortened for the log; it is escaped when the line is written."""
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."


def address_text(peer: str, port: int) -> str:
    """Return an address as Postfix logs it: ``[192.0.2.1]:25``; ``[unix]`` if it is empty."""
    return f"[{peer}]:{port}" if peer else "[unix]"


# --- sessions -------------------------------------------------------------------------------------


class _Sessions:
    """Numbers sessions; each process has its own prefix for their names."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.process = secrets.token_hex(3)
        self.next = itertools.count(1).__next__


_sessions = _Sessions()
os.register_at_fork(after_in_child=_sessions.begin)


def new_session() -> int:
    """Return the number of a new session."""
    return _sessions.next()


def session_name(number: int) -> str:
    """Return the name of a session for the log: ``5f2c1a-1b``."""
    return f"{_sessions.process}-{number:x}"
