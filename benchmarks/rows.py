"""The rows of the table, with their goals, as data.

Rules of this file: data only. A row compares two candidates of a workload, pair by pair, and has a
goal and a stretch goal. Several rows may use the same workload.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROWS", "Bound", "Row"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A goal; every part that is set must hold.

    Attributes:
        ratio: at least this many times cheaper than the candidate it is compared with.
        value: at most this much, in the workload's unit.
    """

    ratio: float | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        key: name for ``--rows``.
        title: what is measured, for the reader.
        workload: key of the workload.
        ours: the candidate of this package.
        against: the candidate it is compared with, pair by pair; none if empty.
        goal: the goal, or None for a row that only informs.
        stretch: the stretch goal.
    """

    key: str
    title: str
    workload: str
    ours: str
    against: str = "uvloop"
    goal: Bound | None = None
    stretch: Bound | None = None


def _delivery(protocol: str, where: str, clients: int) -> Row:
    """Return the row for deliveries into a Maildir by this many clients at once."""
    other = "Dovecot" if protocol == "lmtp" else "Postfix"
    disk = "on disk" if where == "disk" else "in memory (tmpfs)"
    key = f"{protocol}-{where}-{clients}"
    many = "1 client" if clients == 1 else f"{clients} clients"
    title = f"{protocol.upper()} into a Maildir {disk}, {many}"
    return Row(key, title, key, "fastlisten SMTP", against=other)


def _sizes(name: str, size: str, how: str) -> Row:
    """Return the row for messages of one size to a sink."""
    key = f"sizes-{name}-{how}"
    title = f"one message of {size} by {how.upper()}, to a sink"
    return Row(key, title, key, "fastlisten SMTP", against="C SMTP")


def _imap(
    key: str,
    title: str,
    goal: Bound | None = None,
    stretch: Bound | None = None,
    against: str = "Dovecot IMAP",
) -> Row:
    """Return the row for a workload of IMAP."""
    return Row(f"imap-{key}", title, f"imap-{key}", "fastlisten IMAP", against, goal, stretch)


_IMAP = (
    _imap("noop-10", "NOOP, 10 messages selected", Bound(1 / 1.5), Bound(1.0)),
    _imap("noop-10000", "NOOP, 10,000 messages selected", Bound(1 / 1.5), Bound(1.0)),
    _imap("select-10000", "SELECT of 10,000 messages", Bound(value=150), Bound(value=60)),
    _imap("first-10000", "the same, first in a worker", Bound(value=20), Bound(value=10)),
    _imap(
        "cur-50000",
        "SELECT of 50,000 messages in cur/ without an index",
        Bound(value=1000),
        Bound(value=500),
    ),
    _imap("new-50000", "the same in new/", Bound(value=2000), Bound(value=1000)),
    _imap("flags-10000", "FETCH 1:* (FLAGS), 10,000 messages", Bound(1.0), Bound(5.0)),
    _imap(
        "fetch-small",
        "UID FETCH 1 (FLAGS BODY.PEEK[]), small message",
        Bound(1 / 1.5),
        Bound(1.0),
    ),
    _imap("search-unseen", "SEARCH UNSEEN, 10,000 messages"),
    _imap("search-since", "SEARCH SINCE, 10,000 messages"),
    _imap("append-10k", "APPEND 10 kB to the disk", Bound(1.0), Bound(1.3)),
    _imap("session", "session: LOGIN, SELECT, FETCH of 10 headers, LOGOUT"),
    _imap(
        "idle-1000",
        "memory per session in IDLE, 1,000 accounts",
        Bound(value=3000),
        Bound(None, 1500),
    ),
    _imap("idle-tls-1000", "the same, TLS", Bound(value=20_000), Bound(value=17_000)),
    _imap(
        "idle-10000",
        "memory per session in IDLE, 10,000 accounts",
        Bound(value=3000),
        Bound(value=1500),
        against="",
    ),
    _imap("idle-tls-10000", "the same, TLS", Bound(value=20_000), Bound(value=17_000), against=""),
    _imap("notice-100", "p99 until a delivery is shown in IDLE, 100 sessions, 50 a second"),
    _imap(
        "notice-10000",
        "p99 until a delivery is shown in IDLE, 10,000 sessions, 500 a second",
        Bound(value=100),
        Bound(value=20),
        against="",
    ),
)


ROWS: tuple[Row, ...] = (
    Row(
        "accept",
        "accept, connection_made, greeting, close",
        "accept",
        "fastlisten",
        goal=Bound(ratio=1.15),
        stretch=Bound(ratio=1.35),
    ),
    Row(
        "accept-lazy",
        "the same, silent client, lazy",
        "accept",
        "fastlisten lazy",
        goal=Bound(ratio=1.20),
        stretch=Bound(ratio=1.40),
    ),
    Row("talk", "accept, greeting, one line answered, close", "talk", "fastlisten"),
    Row("talk-lazy", "the same, lazy", "talk", "fastlisten lazy"),
    Row(
        "echo-64-100",
        "echo 64 B, 100 connections",
        "echo-64-100",
        "fastlisten",
        goal=Bound(ratio=1.0),
        stretch=Bound(ratio=1.10),
    ),
    Row(
        "echo-64-1000",
        "echo 64 B, 1,000 connections",
        "echo-64-1000",
        "fastlisten",
        goal=Bound(ratio=1.10),
        stretch=Bound(ratio=1.30),
    ),
    Row(
        "echo-64k-100",
        "echo 64 KiB, 100 connections",
        "echo-64k-100",
        "fastlisten",
        goal=Bound(ratio=0.90),
        stretch=Bound(ratio=1.05),
    ),
    Row(
        "tls-echo-64",
        "TLS echo 64 B, 100 connections",
        "tls-echo-64",
        "fastlisten",
        goal=Bound(ratio=1.25),
        stretch=Bound(ratio=1.4),
    ),
    Row(
        "tls-echo-16k",
        "TLS echo 16 KiB, 100 connections",
        "tls-echo-16k",
        "fastlisten",
        goal=Bound(ratio=1.25),
        stretch=Bound(ratio=1.4),
    ),
    Row(
        "tls-rsa",
        "TLS connection, RSA-2048: accept, handshake, greeting, close",
        "tls-rsa",
        "fastlisten",
        goal=Bound(ratio=1.05),
        stretch=Bound(ratio=1.14),
    ),
    Row(
        "tls-p256",
        "TLS connection, P-256: the same",
        "tls-p256",
        "fastlisten",
        goal=Bound(ratio=1.0),
        stretch=Bound(ratio=1.06),
    ),
    Row(
        "refusal",
        "refusal at the limit, against our own accept",
        "refusal",
        "fastlisten full",
        against="fastlisten",
        goal=Bound(ratio=1 / 0.9),
    ),
    Row(
        "memory",
        "user memory per idle connection, eager",
        "memory",
        "fastlisten",
        goal=Bound(value=256),
        stretch=Bound(value=150),
    ),
    Row(
        "memory-lazy",
        "user memory per idle connection, lazy",
        "memory",
        "fastlisten lazy",
        goal=Bound(value=64),
        stretch=Bound(value=32),
    ),
    Row(
        "tls-memory",
        "user memory per idle TLS connection, eager",
        "tls-memory",
        "fastlisten",
        goal=Bound(value=20_000),
        stretch=Bound(value=17_000),
    ),
    Row(
        "tls-memory-lazy",
        "user memory per idle TLS connection, lazy",
        "tls-memory",
        "fastlisten lazy",
        goal=Bound(value=20_000),
        stretch=Bound(value=17_000),
    ),
    Row(
        "lag",
        "p99 lag of a 10 ms timer, 1,000 clients connecting",
        "lag",
        "fastlisten",
        goal=Bound(value=10, ratio=0.5),
        stretch=Bound(value=5),
    ),
    Row(
        "lag-slow",
        "p99 lag of a 10 ms timer, 10 of 100 connections work 1 ms per message",
        "lag-slow",
        "fastlisten",
    ),
    Row(
        "options",
        "option system calls per accepted connection",
        "options",
        "fastlisten",
        goal=Bound(value=0),
    ),
    Row(
        "start",
        "start of 10,000 listeners, from the command to the last greeting",
        "start",
        "fastlisten",
        goal=Bound(value=3),
    ),
    Row(
        "smtp",
        "SMTP session of one message to a sink",
        "smtp",
        "fastlisten SMTP",
        against="aiosmtpd",
        goal=Bound(ratio=8),
        stretch=Bound(ratio=9),
    ),
    Row(
        "smtp-sink",
        "the same, against smtp-sink",
        "smtp",
        "fastlisten SMTP",
        against="smtp-sink",
        goal=Bound(ratio=1 / 0.92),
        stretch=Bound(ratio=1 / 0.85),
    ),
    Row(
        "smtp-aiosmtpd",
        "the same, aiosmtpd's Sink class on our engine",
        "smtp",
        "fastlisten Sink",
        against="aiosmtpd",
        goal=Bound(ratio=6),
        stretch=Bound(ratio=9),
    ),
    Row(
        "smtp-pipelined",
        "the same, pipelined, to a sink",
        "smtp-pipelined",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    Row(
        "smtp-10",
        "one message of a session of ten, to a sink",
        "smtp-10",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    Row(
        "smtp-source",
        "SMTP session of one message by smtp-source, to a sink",
        "smtp-source",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    Row(
        "lmtp",
        "LMTP session of one message to a sink",
        "lmtp",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    Row(
        "maildir",
        "SMTP session of one message to a Maildir on disk",
        "maildir",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    Row(
        "maildir-memory",
        "SMTP session of one message to a Maildir in memory (tmpfs)",
        "maildir-memory",
        "fastlisten SMTP",
        against="aiosmtpd",
    ),
    *(
        _delivery(protocol, where, clients)
        for protocol in ("lmtp", "smtp")
        for where in ("disk", "memory")
        for clients in (1, 16, 100)
    ),
    *(
        _sizes(name, size, how)
        for how in ("data", "bdat")
        for name, size in (("4k", "4 KiB"), ("64k", "64 KiB"), ("1m", "1 MiB"))
    ),
    *_IMAP,
    Row(
        "http",
        "a request of a kept connection to a small ASGI application",
        "http",
        "fastlisten HTTP",
        against="uvicorn httptools",
        goal=Bound(ratio=1.0),
    ),
    Row(
        "http-h11",
        "the same, against uvicorn with h11",
        "http",
        "fastlisten HTTP",
        against="uvicorn h11",
    ),
    Row(
        "http-granian",
        "the same, against granian",
        "http",
        "fastlisten HTTP",
        against="granian",
        stretch=Bound(ratio=1.0),
    ),
)
