"""What is measured: candidates and the work they do, as data.

Rules of this file: no code beyond the shapes. A workload is measured for all its candidates in
one interleaved run; which of them a row of the table compares, and what is wanted of it, says
`rows.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.build import SERVER, TLS_SERVER

__all__ = ["CANDIDATES", "GREETING", "TLS_CANDIDATES", "WORKLOADS", "Kind", "Workload"]

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
}

#: Those that are another program where TLS is spoken.
TLS_CANDIDATES: Mapping[str, tuple[str, ...]] = {"C epoll": (str(TLS_SERVER),)}

_ALL = ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")
_EAGER = ("fastlisten", "uvloop", "asyncio", "C epoll")
_PYTHONS = ("fastlisten", "uvloop", "asyncio")

#: What is read of the server: processor time per operation in µs, memory per held connection in
#: bytes, the lag of a timer in ms, or system calls per connection.
Kind = Literal["cpu", "memory", "lag", "count"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        key: name for ``--only`` and in the JSON.
        kind: what is read of the server.
        candidates: who does it.
        mode: of the load generator.
        options: of the load generator, without address, time and sources.
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
    serve: tuple[str, ...] = ()
    greets: bool = True
    tls: Literal["", "rsa-2048", "p-256"] = ""
    received: int = 0
    refused: int = 0
    rounds: int = 1000


_GREETED = len(GREETING) + 2

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
)
