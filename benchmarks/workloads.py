"""The workloads and the candidates that do them, as data.

Rules of this file: data only. A workload is measured for all its candidates in one interleaved run.
`rows.py` says which of them a row of the table compares, and with what goal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.build import SERVER, SMTP_SERVER, TLS_SERVER

__all__ = [
    "CANDIDATES",
    "CONTROLS",
    "GREETING",
    "TLS_CANDIDATES",
    "WORKLOADS",
    "Family",
    "Kind",
    "Mail",
    "Workload",
]

#: The greeting of servers that greet, without its CR LF.
GREETING = "220 mail.example.org ESMTP ready"

#: The refusal above the limit, as in `candidates/fastlisten_server.py`, with CR LF.
REFUSAL = "421 4.3.2 too many connections\r\n"

#: A line for the server to echo, as long as an EHLO.
SAID = "EHLO client.example.org"

#: Number of client addresses that connections come from.
SOURCES = 64

#: Connections held to measure the memory of one; a common limit is 20,000 descriptors per process.
HELD = 15_000

_PYTHON = (sys.executable, "-m")

#: The candidates' commands. "full" has a limit of one connection, and it is taken.
CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "C epoll": (str(SERVER),),
    "uvloop": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
    "asyncio": (*_PYTHON, "benchmarks.candidates.asyncio_server"),
    "fastlisten": (*_PYTHON, "benchmarks.candidates.fastlisten_server"),
    "fastlisten lazy": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--lazy"),
    "fastlisten full": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--limit", "1"),
    # The same program again: any difference between the two is noise.
    "uvloop again": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
    # SMTP servers. If given a data directory, they deliver to it.
    "C SMTP": (str(SMTP_SERVER),),
    "smtp-sink": (*_PYTHON, "benchmarks.candidates.smtp_sink"),
    "aiosmtpd": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd"),
    "aiosmtpd on asyncio": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd", "--loop", "asyncio"),
    "aiosmtpd again": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd"),
    "fastlisten SMTP": (*_PYTHON, "benchmarks.candidates.smtp_fastlisten"),
    "fastlisten Sink": (*_PYTHON, "benchmarks.candidates.smtp_fastlisten", "--aiosmtpd"),
    # Mail servers of several processes.
    "Dovecot": (*_PYTHON, "benchmarks.candidates.mail_servers", "dovecot"),
    "Postfix": (*_PYTHON, "benchmarks.candidates.mail_servers", "postfix"),
    # IMAP servers, of the mail in a data directory.
    "Dovecot IMAP": (*_PYTHON, "benchmarks.candidates.mail_servers", "dovecot-imap"),
    "Dovecot again": (*_PYTHON, "benchmarks.candidates.mail_servers", "dovecot-imap"),
    "fastlisten IMAP": (*_PYTHON, "benchmarks.candidates.imap_fastlisten"),
    # ASGI servers.
    "uvicorn httptools": (*_PYTHON, "benchmarks.candidates.http_uvicorn"),
    "uvicorn h11": (*_PYTHON, "benchmarks.candidates.http_uvicorn", "--http", "h11"),
    "uvicorn again": (*_PYTHON, "benchmarks.candidates.http_uvicorn"),
    "granian": (*_PYTHON, "benchmarks.candidates.http_granian"),
    "fastlisten HTTP": (*_PYTHON, "benchmarks.candidates.http_fastlisten"),
    # For counting instructions: they read bodies and serve websockets.
    "fastlisten bodies": (*_PYTHON, "benchmarks.candidates.http_fastlisten", "--bodies"),
    "uvicorn bodies": (*_PYTHON, "benchmarks.candidates.http_uvicorn", "--bodies"),
}

#: Candidates that use another program for TLS.
TLS_CANDIDATES: Mapping[str, tuple[str, ...]] = {"C epoll": (str(TLS_SERVER),)}

_ALL = ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")
_EAGER = ("fastlisten", "uvloop", "asyncio", "C epoll")
_PYTHONS = ("fastlisten", "uvloop", "asyncio")
_SMTP = ("fastlisten SMTP", "aiosmtpd", "aiosmtpd on asyncio", "smtp-sink", "C SMTP")

#: Workloads with the same candidates, which share a table.
Family = Literal["connections", "smtp", "delivery", "sizes", "imap", "http"]

#: The candidate that --control measures against itself, by family, and its double.
CONTROLS: Mapping[Family, tuple[str, str]] = {
    "connections": ("uvloop", "uvloop again"),
    "smtp": ("aiosmtpd", "aiosmtpd again"),
    "delivery": ("aiosmtpd", "aiosmtpd again"),
    "sizes": ("aiosmtpd", "aiosmtpd again"),
    "imap": ("Dovecot IMAP", "Dovecot again"),
    "http": ("uvicorn httptools", "uvicorn again"),
}

#: What is measured: processor time per operation in µs, or of one operation in ms; memory per held
#: connection in bytes; the lag of a timer in ms; the p99 of a latency in ms; system calls per
#: connection; or the time to start in s.
Kind = Literal["cpu", "once", "memory", "lag", "latency", "count", "start"]


@dataclass(frozen=True, slots=True)
class Mail:
    """The mail that IMAP servers find.

    Attributes:
        messages: of each account.
        accounts: 0 for one, alice@example.org; else u0@example.org and so on.
        new: the messages lie in new/, not in cur/.
        indexed: a server has read the mail before.
    """

    messages: int
    accounts: int = 0
    new: bool = False
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        key: name for ``--only`` and in the JSON.
        kind: what is measured.
        candidates: names of the candidates that do it.
        mode: the mode of our load generator, or ``smtp-source`` or ``wrk``, which are other
            projects' load generators; empty if there is no load (see `start.py`).
        options: options of the load generator, except address, time and sources.
        family: the table that it belongs to.
        data: where the servers deliver to: a directory in memory or on disk.
        serve: additional arguments for the servers.
        greets: the servers greet.
        tls: kind of the certificate (see `certificates.py`), empty for plain connections.
        received: bytes that the client must receive per operation; 0 disables the check.
        refused: the same for a candidate that is full.
        rounds: the most rounds worth running, for figures that hardly vary.
        mail: what is in the data directory before a server is started.
    """

    key: str
    kind: Kind
    candidates: tuple[str, ...]
    mode: str
    options: tuple[str, ...] = ()
    family: Family = "connections"
    data: Literal["", "memory", "disk"] = ""
    serve: tuple[str, ...] = ()
    greets: bool = True
    tls: Literal["", "rsa-2048", "p-256"] = ""
    received: int = 0
    refused: int = 0
    rounds: int = 1000
    mail: Mail | None = None


_GREETED = len(GREETING) + 2


def _smtp(
    key: str,
    candidates: tuple[str, ...],
    *options: str,
    mode: str = "smtp",
    data: Literal["", "memory", "disk"] = "",
) -> Workload:
    """Return sessions of one message of 1 KiB, 100 at a time, unless the options say otherwise."""
    sizes = {"smtp": ("--in-flight", "100"), "smtp-source": ("-s", "100", "-l", "1024")}
    given = (*sizes[mode], *options)
    return Workload(key, "cpu", candidates, mode, given, "smtp", data, greets=False)


def _delivery(protocol: str, where: Literal["memory", "disk"], clients: int) -> Workload:
    """Return sessions of ten messages of 1 KiB into a Maildir, this many at a time."""
    lmtp = protocol == "lmtp"
    other = "Dovecot" if lmtp else "Postfix"
    # Sessions that have begun are completed, which takes slow servers a while.
    options = ("--in-flight", str(clients), "--messages", "10", "--grace", "60")
    workload = _smtp(f"{protocol}-{where}-{clients}", ("fastlisten SMTP", other), data=where)
    flag = ("--lmtp",) if lmtp else ()
    return replace(workload, options=(*options, *flag), family="delivery", serve=flag)


#: Message sizes by name, in octets, and the number of sessions at a time.
SIZES: Mapping[str, tuple[int, int]] = {
    "4k": (4 * 1024, 100),
    "64k": (64 * 1024, 32),
    "1m": (1024 * 1024, 8),
}


def _sizes(name: str, how: str) -> Workload:
    """Return sessions of ten messages of one size to a sink, by DATA or BDAT."""
    size, clients = SIZES[name]
    options = ("--in-flight", str(clients), "--messages", "10", "--size", str(size))
    # smtp-sink does not support BDAT.
    others = ("C SMTP", "smtp-sink") if how == "data" else ("C SMTP",)
    flag = ("--bdat",) if how == "bdat" else ()
    workload = _smtp(f"sizes-{name}-{how}", ("fastlisten SMTP", *others))
    return replace(workload, options=(*options, *flag), family="sizes")


def _imap(key: str, mail: Mail, *options: str, kind: Kind = "cpu", **named: Any) -> Workload:
    """Return commands to an IMAP server, on a mailbox that is selected unless they do that."""
    both = ("fastlisten IMAP", "Dovecot IMAP")
    values = {"candidates": both, "data": "memory", **named}
    return Workload(
        key, kind, mode="imap", options=options, family="imap", greets=False, mail=mail, **values
    )


def _again(command: str, clients: int, first: str = "SELECT INBOX") -> tuple[str, ...]:
    """Return options for a command that clients say again and again, in a selected mailbox."""
    selects = ("--first", first) if first else ()
    return (*selects, "--command", command, "--connections", str(clients), "--grace", "60")


#: One client says one command, once.
_ONE_SELECT = ("--command", "SELECT INBOX", "--connections", "1", "--count", "1")

#: Clients wait in IDLE, each in an account of its own.
_IDLE = ("--user", "u%u@example.org", "--first", "SELECT INBOX", "--idle")

_OURS = ("fastlisten IMAP",)

_IMAP = (
    _imap("imap-noop-10", Mail(10), *_again("NOOP", 10)),
    _imap("imap-noop-10000", Mail(10_000), *_again("NOOP", 10)),
    _imap("imap-select-10000", Mail(10_000), *_again("SELECT INBOX", 4, first="")),
    _imap("imap-first-10000", Mail(10_000, indexed=True), *_ONE_SELECT, kind="once", rounds=3),
    _imap("imap-cur-50000", Mail(50_000), *_ONE_SELECT, kind="once", rounds=3),
    _imap("imap-new-50000", Mail(50_000, new=True), *_ONE_SELECT, kind="once", rounds=3),
    _imap("imap-flags-10000", Mail(10_000), *_again("FETCH 1:* (FLAGS)", 2)),
    # A tmpfs does not say whether a read would wait (RWF_NOWAIT).
    _imap(
        "imap-fetch-small",
        Mail(100),
        *_again("UID FETCH 1 (FLAGS BODY.PEEK[])", 10),
        data="disk",
    ),
    _imap("imap-search-unseen", Mail(10_000), *_again("SEARCH UNSEEN", 2)),
    _imap("imap-search-since", Mail(10_000), *_again("SEARCH SINCE 1-Feb-2024", 2)),
    _imap("imap-append-10k", Mail(10), *_again("APPEND INBOX {10240+}", 1, first=""), data="disk"),
    _imap(
        "imap-session",
        Mail(100),
        *("--sessions", "--connections", "10", "--first", "SELECT INBOX", "--grace", "60"),
        *("--command", "UID FETCH 50:59 (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER])"),
        data="disk",
    ),
    # Dovecot has a process for each session.
    _imap("imap-idle-1000", Mail(1, 1000), *_IDLE, kind="memory", rounds=1),
    _imap("imap-idle-tls-1000", Mail(1, 1000), *_IDLE, kind="memory", tls="p-256", rounds=1),
    _imap("imap-idle-10000", Mail(1, 10_000), *_IDLE, kind="memory", rounds=1, candidates=_OURS),
    _imap(
        "imap-idle-tls-10000",
        Mail(1, 10_000),
        *_IDLE,
        kind="memory",
        tls="p-256",
        rounds=1,
        candidates=_OURS,
    ),
    _imap(
        "imap-notice-10000",
        Mail(1, 10_000),
        *(*_IDLE, "--rate", "500", "--grace", "60"),
        kind="latency",
        rounds=1,
        candidates=_OURS,
    ),
    # Few, because the kernel gives a user 128 descriptors of inotify, and each of Dovecot's
    # processes needs one.
    _imap(
        "imap-notice-100",
        Mail(1, 100),
        *(*_IDLE, "--rate", "50", "--grace", "60"),
        kind="latency",
        rounds=3,
    ),
)


WORKLOADS: tuple[Workload, ...] = (
    Workload("accept", "cpu", _ALL, "silent", ("--in-flight", "100"), received=_GREETED),
    Workload(
        "talk",
        "cpu",
        _ALL,
        "accept",
        ("--in-flight", "100", "--say", SAID),
        received=_GREETED + len(SAID) + 2,
    ),
    Workload("echo-64-100", "cpu", _EAGER, "echo", ("--connections", "100"), greets=False),
    Workload("echo-64-1000", "cpu", _EAGER, "echo", ("--connections", "1000"), greets=False),
    Workload(
        "echo-64k-100",
        "cpu",
        _EAGER,
        "echo",
        ("--connections", "100", "--size", "65536"),
        greets=False,
    ),
    Workload(
        "tls-echo-64",
        "cpu",
        _EAGER,
        "echo",
        ("--connections", "100"),
        greets=False,
        tls="p-256",
    ),
    Workload(
        "tls-echo-16k",
        "cpu",
        _EAGER,
        "echo",
        ("--connections", "100", "--size", "16384"),
        greets=False,
        tls="p-256",
    ),
    Workload(
        "tls-rsa",
        "cpu",
        _EAGER,
        "silent",
        ("--in-flight", "50"),
        tls="rsa-2048",
        received=_GREETED,
    ),
    Workload(
        "tls-p256",
        "cpu",
        _EAGER,
        "silent",
        ("--in-flight", "50"),
        tls="p-256",
        received=_GREETED,
    ),
    Workload(
        "refusal",
        "cpu",
        ("fastlisten full", "fastlisten", "uvloop"),
        "silent",
        ("--in-flight", "100"),
        received=_GREETED,
        refused=len(REFUSAL),
    ),
    Workload("memory", "memory", _ALL, "hold", ("--in-flight", "64", "--greeting"), rounds=3),
    Workload(
        "tls-memory",
        "memory",
        _ALL,
        "hold",
        ("--in-flight", "64", "--greeting"),
        tls="p-256",
        rounds=3,
    ),
    Workload("lag", "lag", _PYTHONS, "silent", ("--in-flight", "1000"), received=_GREETED),
    Workload(
        "lag-slow",
        "lag",
        _PYTHONS,
        "echo",
        ("--connections", "100"),
        # Every tenth connection works for a millisecond per message.
        serve=("--slow-every", "10", "--slow", "0.001"),
        greets=False,
    ),
    Workload("options", "count", _EAGER, "silent", ("--in-flight", "20"), rounds=1),
    Workload("start", "start", _PYTHONS, ""),
    _smtp("smtp", ("fastlisten SMTP", "fastlisten Sink", *_SMTP[1:])),
    _smtp("smtp-pipelined", _SMTP, "--pipelining"),
    _smtp("smtp-10", _SMTP, "--messages", "10"),
    _smtp("smtp-source", _SMTP, mode="smtp-source"),
    # Without the C server, whose work is the same in LMTP.
    replace(_smtp("lmtp", _SMTP[:-1], "--lmtp"), serve=("--lmtp",)),
    _smtp("maildir", _SMTP[:-1], data="disk"),
    _smtp("maildir-memory", _SMTP[:-1], data="memory"),
    *(
        _delivery(protocol, where, clients)
        for protocol in ("lmtp", "smtp")
        for where in ("disk", "memory")
        for clients in (1, 16, 100)
    ),
    *(_sizes(name, how) for how in ("data", "bdat") for name in SIZES),
    *_IMAP,
    Workload(
        "http",
        "cpu",
        ("fastlisten HTTP", "uvicorn httptools", "uvicorn h11", "granian"),
        "wrk",
        ("-c50",),
        family="http",
        greets=False,
    ),
)
