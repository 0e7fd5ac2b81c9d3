"""Notifications to a service manager, as the manager receives them.

Rules of this file: the manager is a datagram socket of the test; the program is the installed one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import authority
from support.program import program, run
from support.waiting import PATIENCE

from fastlisten.runtime.service_manager import ServiceManager

LISTENER = """
[server.listener.it]
protocol = "lmtp"
bind = "127.0.0.1:0"
tls.enable = false
"""


class Manager:
    """A service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        self.sock.bind(address.replace("@", "\0") if address.startswith("@") else address)
        self.address = address

    def next(self) -> dict[str, str]:
        """Return the next notification."""
        lines = self.sock.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def next_but_watchdog(self) -> dict[str, str]:
        """Return the next notification that is not a sign of life."""
        while (found := self.next()) == {"WATCHDOG": "1"}:
            pass
        return found


@contextlib.contextmanager
def managing(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    with manager.sock:
        yield manager


@pytest.mark.parametrize("abstract", [False, True])
def test_program_is_ready_reloads_and_stops(tmp_path: Path, abstract: bool) -> None:
    address = f"@fastlisten-{os.getpid()}-{time.monotonic_ns()}" if abstract else f"{tmp_path}/n"
    with (
        managing(address) as manager,
        program(tmp_path, LISTENER, environ={"NOTIFY_SOCKET": address}) as started,
    ):
        ready = {"READY": "1", "STATUS": "serving 1 listener"}
        assert manager.next() == ready
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        started.signal(signal.SIGHUP)
        reloading = manager.next()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before <= int(reloading.pop("MONOTONIC_USEC")) <= after
        assert reloading == {"RELOADING": "1", "STATUS": "reloading"}
        assert manager.next() == ready
        assert started.stop() == 0
        assert manager.next() == {"STOPPING": "1", "STATUS": "draining"}
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.next()


def test_watchdog_is_fed_from_the_loop(tmp_path: Path) -> None:
    address = f"{tmp_path}/n"
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
    with managing(address) as manager, program(tmp_path, LISTENER, environ=environ) as started:
        assert manager.next()["READY"] == "1"
        for _ in range(5):
            assert manager.next() == {"WATCHDOG": "1"}
        started.signal(signal.SIGHUP)
        assert manager.next_but_watchdog()["RELOADING"] == "1"
        assert manager.next_but_watchdog()["READY"] == "1"
        assert manager.next() == {"WATCHDOG": "1"}
        assert started.stop() == 0
        assert manager.next_but_watchdog()["STOPPING"] == "1"


def test_failed_reload_is_in_the_status(tmp_path: Path) -> None:
    address = f"{tmp_path}/n"
    ca = tmp_path / "ca.pem"
    text = LISTENER.replace("tls.enable = false", f"tls.client-ca = '{ca}'")
    ca.write_bytes(authority().pem)
    with (
        managing(address) as manager,
        program(tmp_path, text, environ={"NOTIFY_SOCKET": address}) as started,
    ):
        assert manager.next()["STATUS"] == "serving 1 listener"
        ca.write_text("")
        started.signal(signal.SIGHUP)
        assert manager.next()["STATUS"] == "reloading"
        assert manager.next() == {
            "READY": "1",
            "STATUS": "serving 1 listener; the last reload failed",
        }
        assert started.stop() == 0


def test_failed_start_is_not_ready(tmp_path: Path) -> None:
    address = f"{tmp_path}/n"
    text = LISTENER.replace("127.0.0.1:0", "192.0.2.1:2525")
    with (
        managing(address) as manager,
        program(tmp_path, text, listeners=0, environ={"NOTIFY_SOCKET": address}) as started,
    ):
        assert started.ended() == 3
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.next()


def test_supervisor_notifies_for_all_workers(tmp_path: Path) -> None:
    address = f"{tmp_path}/n"
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
    text = f"[server]\nworkers = 2\ndata-directory = '{tmp_path}/data'\n{LISTENER}"
    with (
        managing(address) as manager,
        program(tmp_path, text, unchanged=True, environ=environ) as started,
    ):
        ready = {"READY": "1", "STATUS": "serving 1 listener, 2 workers"}
        assert manager.next() == ready
        for _ in range(5):
            assert manager.next() == {"WATCHDOG": "1"}
        started.process.send_signal(signal.SIGHUP)
        assert manager.next_but_watchdog()["RELOADING"] == "1"
        assert manager.next_but_watchdog() == ready
        started.process.send_signal(signal.SIGTERM)
        assert manager.next_but_watchdog() == {"STOPPING": "1", "STATUS": "draining"}
        assert started.ended() == 0
        manager.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert manager.next() == {"WATCHDOG": "1"}


def test_upgrade_is_a_reload_of_the_same_process(tmp_path: Path) -> None:
    address = f"{tmp_path}/n"
    # Signs of life at fixed moments, and none in between.
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3600000000"}
    text = f"[server]\nworkers = 2\ndata-directory = '{tmp_path}/data'\n{LISTENER}"
    with (
        managing(address) as manager,
        program(tmp_path, text, unchanged=True, environ=environ) as started,
    ):
        ready = {"READY": "1", "STATUS": "serving 1 listener, 2 workers"}
        alive = {"WATCHDOG": "1"}
        assert [manager.next(), manager.next()] == [ready, alive]
        assert run("upgrade", "--config", tmp_path / "mail.toml").returncode == 0
        assert manager.next()["RELOADING"] == "1"
        assert [manager.next() for _ in range(3)] == [alive, ready, alive]
        started.process.send_signal(signal.SIGTERM)
        assert manager.next() == {"STOPPING": "1", "STATUS": "draining"}
        assert started.ended() == 0


@pytest.mark.parametrize(
    ("usec", "pid", "watchdog"),
    [
        ("30000000", "", 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", 0.0),
        ("", "", 0.0),
        ("-5", "", 0.0),
        ("soon", "", 0.0),
        ("9" * 30, "", 0.0),
    ],
)
def test_watchdog_of_this_process(usec: str, pid: str, watchdog: float) -> None:
    pid = pid.replace("own", str(os.getpid()))
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert ServiceManager(environ).watchdog == watchdog
    assert ServiceManager({**environ, "NOTIFY_SOCKET": ""}).watchdog == 0


def test_missing_manager_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": f"{tmp_path}/nothing"})
    manager.ready("serving")
    manager.stopping("draining")
    (message,) = caplog.messages
    assert message.startswith("cannot notify the service manager: ")
    caplog.clear()
    for address in ("", "vsock:2:1", "relative"):
        ServiceManager({"NOTIFY_SOCKET": address}).ready("serving")
    assert caplog.messages == []


def test_long_status_is_cut(tmp_path: Path) -> None:
    with managing(f"{tmp_path}/n") as manager:
        ServiceManager({"NOTIFY_SOCKET": manager.address}).ready("x" * 5000)
        assert manager.next()["STATUS"] == "x" * 200
