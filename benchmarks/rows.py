"""What is measured and what is wanted: candidates, workloads and the rows of the table, as data.

Rules of this file: no code beyond the shapes. A workload is measured for all its candidates in
one interleaved run; a row compares one candidate of a workload with another and has a goal. The
same workload may serve several rows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from benchmarks.build import SERVER

__all__ = ["CANDIDATES", "GREETING", "REFUSAL", "ROWS", "WORKLOADS", "Bound", "Row", "Workload"]

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

#: Commands of the candidates. "-full" is one whose only place is taken.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "C epoll": (str(SERVER),),
    "uvloop": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
    "asyncio": (*_PYTHON, "benchmarks.candidates.asyncio_server"),
    "fastlisten": (*_PYTHON, "benchmarks.candidates.fastlisten_server"),
    "fastlisten lazy": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--lazy"),
    "fastlisten full": (*_PYTHON, "benchmarks.candidates.fastlisten_server", "--limit", "1"),
    # The same program again: what differs between the two is noise.
    "uvloop again": (*_PYTHON, "benchmarks.candidates.uvloop_server"),
}

_ALL = ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")
_EAGER = ("fastlisten", "uvloop", "asyncio", "C epoll")


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        key: name for ``--only`` and in the JSON.
        kind: what is read of the server: processor time per operation in µs, memory per held
            connection in bytes, or the lag of a timer in ms.
        candidates: who does it.
        mode: of the load generator.
        options: of the load generator, without address, time and sources.
        greets: the servers greet.
        received: bytes the client must have received per operation, 0 where it is not checked.
        refused: bytes the same for a candidate that is full.
    """

    key: str
    kind: Literal["cpu", "memory", "lag"]
    candidates: tuple[str, ...]
    mode: str
    options: tuple[str, ...] = ()
    greets: bool = True
    received: int = 0
    refused: int = 0


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
        "refusal",
        "cpu",
        ("fastlisten full", "fastlisten", "uvloop"),
        "silent",
        ("--in-flight", "100"),
        received=_GREETED,
        refused=len(REFUSAL),
    ),
    Workload("memory", "memory", _ALL, "hold", ("--in-flight", "64", "--greeting")),
    Workload(
        "lag",
        "lag",
        ("fastlisten", "uvloop", "asyncio"),
        "silent",
        ("--in-flight", "1000"),
        received=_GREETED,
    ),
)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a row has to reach; every part that is given must hold.

    Attributes:
        ratio: at least so many times cheaper than what it is compared with.
        value: at most this much, in the workload's unit.
    """

    ratio: float | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        title: what is measured, for the reader.
        workload: key of the workload.
        ours: the candidate of this package.
        against: the candidate it is compared with, pair by pair.
        goal: what is wanted, or None for a row that only informs.
        stretch: what would be better still.
    """

    title: str
    workload: str
    ours: str
    against: str = "uvloop"
    goal: Bound | None = None
    stretch: Bound | None = None


ROWS: tuple[Row, ...] = (
    Row(
        "accept, connection_made, greeting, close",
        "accept",
        "fastlisten",
        goal=Bound(ratio=1.15),
        stretch=Bound(ratio=1.35),
    ),
    Row(
        "the same, silent client, lazy",
        "accept",
        "fastlisten lazy",
        goal=Bound(ratio=1.20),
        stretch=Bound(ratio=1.40),
    ),
    Row("accept, greeting, one line answered, close", "talk", "fastlisten"),
    Row("the same, lazy", "talk", "fastlisten lazy"),
    Row(
        "echo 64 B, 100 connections",
        "echo-64-100",
        "fastlisten",
        goal=Bound(ratio=1.0),
        stretch=Bound(ratio=1.10),
    ),
    Row(
        "echo 64 B, 1,000 connections",
        "echo-64-1000",
        "fastlisten",
        goal=Bound(ratio=1.10),
        stretch=Bound(ratio=1.30),
    ),
    Row(
        "echo 64 KiB, 100 connections",
        "echo-64k-100",
        "fastlisten",
        goal=Bound(ratio=0.90),
        stretch=Bound(ratio=1.05),
    ),
    Row(
        "refusal at the limit, against our own accept",
        "refusal",
        "fastlisten full",
        against="fastlisten",
        goal=Bound(ratio=1 / 0.9),
    ),
    Row(
        "memory per idle connection, eager",
        "memory",
        "fastlisten",
        goal=Bound(value=256),
        stretch=Bound(value=150),
    ),
    Row(
        "memory per idle connection, lazy",
        "memory",
        "fastlisten lazy",
        goal=Bound(value=64),
        stretch=Bound(value=32),
    ),
    Row(
        "p99 lag of a 10 ms timer, 1,000 clients connecting",
        "lag",
        "fastlisten",
        goal=Bound(value=10, ratio=0.5),
        stretch=Bound(value=5),
    ),
)
