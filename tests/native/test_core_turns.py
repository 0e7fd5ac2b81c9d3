"""Turns: listening sockets share the time, and pauses after failures of accept get longer.

Rules of this file: strace slows accept4 down or makes it fail; the program's system calls are
counted, never how long anything took.
"""

from __future__ import annotations

import contextlib
import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest
from support.loops import LOOPS
from support.strace import traced
from support.traced_program import GREETING
from support.waiting import PATIENCE

pytestmark = [pytest.mark.usefixtures("descriptors_back"), pytest.mark.external("strace")]

#: The core's first pause (ms). From 640 ms on the timer is set for other things first.
FIRST = 5

on_both_loops = pytest.mark.parametrize("loop", LOOPS)


@on_both_loops
def test_listeners_accept_in_turn(loop: str, tmp_path: Path) -> None:
    """Accepting is so slow that a turn has time for only a few connections of one listener."""
    options = ["-e", "trace=accept4", "-e", "inject=accept4:delay_exit=20000"]
    # Of four, each may accept 64 times a turn; time is looked at before every fourth.
    with (
        traced(tmp_path / "calls", options, loop=loop, listeners=4) as program,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(socket.create_connection(address, PATIENCE))
            for _ in range(10)
            for address in program.addresses
        ]
        for client in clients:
            assert client.recv(100) == GREETING
    order = re.findall(r"accept4\((\d+), .*\) = \d+", "\n".join(program.calls))
    assert len(order) == len(clients)
    for one in set(order):
        for other in set(order) - {one}:
            last = len(order) - 1 - order[::-1].index(other)
            assert order.index(one) < last, order


@on_both_loops
def test_pauses_after_failures_double(loop: str, tmp_path: Path) -> None:
    failures = 7
    options = ["-e", "trace=accept4,timerfd_settime"]
    options += ["-e", f"inject=accept4:error=ENOBUFS:when=1..{failures}"]
    with (
        traced(tmp_path / "calls", options, loop=loop, listeners=1) as program,
        socket.create_connection(program.addresses[0], PATIENCE) as client,
    ):
        assert client.recv(100) == GREETING
    # What the timer is set to right after each failure.
    pauses = []
    for call, following in pairwise(program.calls):
        if "ENOBUFS" in call:
            match = re.search(r"it_value=\{tv_sec=(\d+), tv_nsec=(\d+)\}", following)
            assert match, following
            pauses.append(int(match[1]) * 1000 + int(match[2]) // 1_000_000)
    assert pauses == [FIRST * 2**number for number in range(failures)]


@on_both_loops
def test_a_failure_of_the_process_pauses_all_listeners(loop: str, tmp_path: Path) -> None:
    """Also those that have not failed: they leave the epoll set before anything else happens."""
    options = ["-e", "trace=accept4,epoll_ctl", "-e", "inject=accept4:error=ENOBUFS:when=1"]
    with (
        traced(tmp_path / "calls", options, loop=loop, listeners=3) as program,
        socket.create_connection(program.addresses[0], PATIENCE) as client,
    ):
        assert client.recv(100) == GREETING
    calls = [line.split(maxsplit=1)[1] for line in program.calls]
    failed = next(number for number, call in enumerate(calls) if "ENOBUFS" in call)
    listening = re.findall(r"accept4\((\d+),", calls[failed])
    paused = [call for call in calls[failed + 1 : failed + 4] if "EPOLL_CTL_DEL" in call]
    assert len(paused) == 3, calls[failed : failed + 8]
    assert any(f"EPOLL_CTL_DEL, {listening[0]}," in call for call in paused)
