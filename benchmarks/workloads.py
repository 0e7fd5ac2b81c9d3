"""What is measured: candidates and the work they do, as data.

Rules of this file: no code beyond the shapes. A workload is measured for all its candidates in
one interleaved run; which of them a row of the table compares, and what is wanted of it, says
`rows.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.build import SERVER, SMTP_SERVER, TLS_SERVER

__all__ = [
    "CANDIDATES",
    "CONTROLS",
    "GREETING",
    "TLS_CANDIDATES",
    "WORKLOADS",
    "Family",
    "Kind",
    "Workload",
]

#: What every server says first where it greets; CR LF is added.
GREETING = "220 mail.example.org ESMTP ready"

#: What is said above the limit: `candidates/fastlisten_server.py`, with CR LF.
REFUSAL = "421 4.3.2 too many connections\r\n"

#: A line that the server sends back, as long as an EHLO.
SAID = "EHLO client.example.org"

#: Client addresses over which connections are spread.
SOURCES = 64

#: Connections held to weigh one: below the usual hard limit of 20,000 descriptors a process.
HELD = 15_000

_PYTHON = (sys.executable, "-m")

#: Commands of the candidates. "full" is one whose only place is taken.
CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "C epoll": (str(SERVER),),
    "uvloop": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
    "asyncio": (*_PYTHON, "benchmarks.candidates.asyncio_server"),
    "fastlisten": (*_PYTHON, "benchmarks.candidates.fastlisten_server"),
    "fastlisten lazy": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--lazy"),
    "fastlisten full": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--limit", "1"),
    # The same program again: what differs between the two is noise.
    "uvloop again": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
    # Those that speak SMTP. Where there is a data directory they deliver to it.
    "C SMTP": (str(SMTP_SERVER),),
    "smtp-sink": (*_PYTHON, "benchmarks.candidates.smtp_sink"),
    "aiosmtpd": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd"),
    "aiosmtpd on asyncio": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd", "--loop", "asyncio"),
    "aiosmtpd again": (*_PYTHON, "benchmarks.candidates.smtp_aiosmtpd"),
    "fastlisten SMTP": (*_PYTHON, "benchmarks.candidates.smtp_fastlisten"),
    "fastlisten Sink": (*_PYTHON, "benchmarks.candidates.smtp_fastlisten", "--aiosmtpd"),
    # Those that deliver, and are more than one process.
    "Dovecot": (*_PYTHON, "benchmarks.candidates.mail_servers", "dovecot"),
    "Postfix": (*_PYTHON, "benchmarks.candidates.mail_servers", "postfix"),
    # Those that serve an ASGI application.
    "uvicorn httptools": (*_PYTHON, "benchmarks.candidates.http_uvicorn"),
    "uvicorn h11": (*_PYTHON, "benchmarks.candidates.http_uvicorn", "--http", "h11"),
    "uvicorn again": (*_PYTHON, "benchmarks.candidates.http_uvicorn"),
    "granian": (*_PYTHON, "benchmarks.candidates.http_granian"),
    "fastlisten HTTP": (*_PYTHON, "benchmarks.candidates.http_fastlisten"),
}

#: Those that are another program where TLS is spoken.
TLS_CANDIDATES: Mapping[str, tuple[str, ...]] = {"C epoll": (str(TLS_SERVER),)}

_ALL = ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")
_EAGER = ("fastlisten", "uvloop", "asyncio", "C epoll")
_PYTHONS = ("fastlisten", "uvloop", "asyncio")
_SMTP = ("fastlisten SMTP", "aiosmtpd", "aiosmtpd on asyncio", "smtp-sink", "C SMTP")

#: A table of its own: rows whose candidates are the same.
Family = Literal["connections", "smtp", "delivery", "sizes", "http"]

#: Who is measured against himself with --control, by family: the candidate and his double.
CONTROLS: Mapping[Family, tuple[str, str]] = {
    "connections": ("uvloop", "uvloop again"),
    "smtp": ("aiosmtpd", "aiosmtpd again"),
    "delivery": ("aiosmtpd", "aiosmtpd again"),
    "sizes": ("aiosmtpd", "aiosmtpd again"),
    "http": ("uvicorn httptools", "uvicorn again"),
}

#: What is read of the server: processor time per operation in µs, memory per held connection in
#: bytes, the lag of a timer in ms, system calls per connection, or the time of a start in s.
Kind = Literal["cpu", "memory", "lag", "count", "start"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        key: name for ``--only`` and in the JSON.
        kind: what is read of the server.
        candidates: who does it.
        mode: of the load generator; ``smtp-source`` and ``wrk`` are programs of others. Empty where
            there is no load (see `start.py`).
        options: of the load generator, without address, time and sources.
        family: the table that it belongs to.
        data: the servers deliver, to a directory in memory or on disk.
        serve: further words of the servers' command line.
        greets: the servers greet.
        tls: kind of the certificate (see `certificates.py`), empty for plain connections.
        received: bytes the client must have received per operation, 0 where it is not checked.
        refused: bytes the same for a candidate that is full.
        rounds: at most so many; where a figure repeats itself more would only take time.
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


_GREETED = len(GREETING) + 2


def _smtp(
    key: str,
    candidates: tuple[str, ...],
    *options: str,
    mode: str = "smtp",
    data: Literal["", "memory", "disk"] = "",
) -> Workload:
    """Return sessions, 100 at a time, of one message of 1 KiB unless the options say more."""
    sizes = {"smtp": ("--in-flight", "100"), "smtp-source": ("-s", "100", "-l", "1024")}
    given = (*sizes[mode], *options)
    return Workload(key, "cpu", candidates, mode, given, "smtp", data, greets=False)


def _delivery(protocol: str, where: Literal["memory", "disk"], clients: int) -> Workload:
    """Return sessions of ten messages of 1 KiB, so many at a time, into a Maildir."""
    lmtp = protocol == "lmtp"
    other = "Dovecot" if lmtp else "Postfix"
    # Sessions that were begun are brought to their end, which takes slow servers a while.
    options = ("--in-flight", str(clients), "--messages", "10", "--grace", "60")
    workload = _smtp(f"{protocol}-{where}-{clients}", ("fastlisten SMTP", other), data=where)
    flag = ("--lmtp",) if lmtp else ()
    return replace(workload, options=(*options, *flag), family="delivery", serve=flag)


#: Sizes of messages by name, in octets, and how many sessions send such at a time.
SIZES: Mapping[str, tuple[int, int]] = {
    "4k": (4 * 1024, 100),
    "64k": (64 * 1024, 32),
    "1m": (1024 * 1024, 8),
}


def _sizes(name: str, how: str) -> Workload:
    """Return sessions of ten messages of a size to a sink, by DATA or BDAT."""
    size, clients = SIZES[name]
    options = ("--in-flight", str(clients), "--messages", "10", "--size", str(size))
    # smtp-sink knows no BDAT.
    others = ("C SMTP", "smtp-sink") if how == "data" else ("C SMTP",)
    flag = ("--bdat",) if how == "bdat" else ()
    workload = _smtp(f"sizes-{name}-{how}", ("fastlisten SMTP", *others))
    return replace(workload, options=(*options, *flag), family="sizes")


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
    # The floor is that of SMTP.
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
