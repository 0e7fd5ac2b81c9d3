"""Errors of accept(2): for one connection, for the whole process, for the listening socket.

Rules of this file: strace injects the errors as real return values of the system call, so that
ENFILE does not need an exhausted machine.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest
from support.loops import LOOPS
from support.strace import traced
from support.traced_program import GREETING
from support.waiting import PATIENCE

pytestmark = [pytest.mark.usefixtures("descriptors_back"), pytest.mark.external("strace")]

OVERLOAD = b"421 out of resources\r\n"


def first_reply(address: tuple[str, int]) -> bytes:
    """Connect and return the first thing that the server sends."""
    with socket.create_connection(address, PATIENCE) as client:
        return client.recv(100)


def failing(error: str, when: str) -> list[str]:
    """Return the options that make accept4 fail at these calls."""
    return ["-e", "trace=accept4", "-e", f"inject=accept4:error={error}:when={when}"]


@pytest.mark.parametrize("error", ["ECONNABORTED", "EPROTO", "EPERM", "ENETUNREACH"])
def test_errors_of_a_single_connection_are_retried(error: str, tmp_path: Path) -> None:
    # Every second call fails; the wake-up is native, so one loop each is enough.
    loop = list(LOOPS)[len(error) % 2]
    with traced(tmp_path / "calls", failing(error, "1+2"), loop=loop, listeners=1) as program:
        for _ in range(10):
            assert first_reply(program.addresses[0]) == GREETING
    failed = [line for line in program.calls if error in line]
    assert len(failed) >= 10
    assert program.lines == []
    assert program.statistics[0]["accepted"] == 10
    # ECONNABORTED is not a failure: the client left while it waited in the queue.
    assert program.errors == [{} if error == "ECONNABORTED" else {error: len(failed)}]


@pytest.mark.parametrize(
    ("error", "loop"),
    [("ENFILE", "asyncio"), ("ENFILE", "uvloop"), ("ENOBUFS", "asyncio"), ("ENOMEM", "uvloop")],
)
def test_resource_errors_pause_all_listeners(loop: str, error: str, tmp_path: Path) -> None:
    # Five calls fail. When out of descriptors, some of them are for refusals.
    with traced(
        tmp_path / "calls",
        failing(error, "1..5"),
        loop=loop,
        listeners=2,
        texts={"overload": OVERLOAD.decode()},
    ) as program:
        heard = [first_reply(address) for _ in range(5) for address in program.addresses]
    assert set(heard) <= {GREETING, OVERLOAD} if error == "ENFILE" else {GREETING}
    failed = [line for line in program.calls if error in line]
    assert len(failed) == 5
    number = getattr(errno, error)
    counted = sum(one.get(error, 0) for one in program.errors)
    assert 1 <= counted == sum(one["accept_errors"] for one in program.statistics) <= 5
    assert len(program.lines) <= 1, program.lines
    for line in program.lines:
        assert line.startswith("listeners: accept failed ")
        assert f"({error}: {os.strerror(number)})" in line
    assert sum(one["accepted"] for one in program.statistics) == heard.count(GREETING) >= 8
    assert sum(one["refused_overload"] for one in program.statistics) == heard.count(OVERLOAD)


@pytest.mark.parametrize(("error", "loop"), [("EINVAL", "asyncio"), ("EBADF", "uvloop")])
def test_unusable_listening_socket_is_given_up(loop: str, error: str, tmp_path: Path) -> None:
    with traced(tmp_path / "calls", failing(error, "1"), loop=loop, listeners=2) as program:
        broken, sound = program.addresses
        with socket.create_connection(broken, PATIENCE) as client:
            end = time.monotonic() + PATIENCE
            while error not in (tmp_path / "calls").read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            for _ in range(5):
                assert first_reply(sound) == GREETING
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(100)
    assert len([line for line in program.calls if error in line]) == 1
    assert len(program.lines) == 1
    assert program.lines[0].startswith(f'listener "0": accept failed permanently ({error}: ')
    assert [one["accept_errors"] for one in program.statistics] == [1, 0]
    assert program.errors == [{error: 1}, {}]
