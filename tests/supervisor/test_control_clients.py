"""Clients of the control socket in the supervisor's poll loop: many, slow, silent or gone.

Rules of this file: clients are real sockets, workers are scripted, time passes when the test says
so. The loop runs until nothing is ready, so that nothing is waited for.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status
from support.kernel import is_open
from support.scripted_workers import Supervisor

from fastlisten.runtime.control_socket.protocol import MAX_REQUEST, ServedProcess
from fastlisten.runtime.control_socket.server import IDLE_TIMEOUT, MAX_CLIENTS, RETRY
from fastlisten.runtime.control_socket.socket_file import ListeningFile
from fastlisten.runtime.supervisor.control_clients import ControlClients
from fastlisten.runtime.supervisor.supervisor_control import REPORT_SECONDS

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Polled:
    """A poll loop with the control socket of two scripted workers.

    Attributes:
        supervisor: the workers and the time.
        clients: under test.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.supervisor = Supervisor()
        served = ServedProcess(self.supervisor.control, self.reload, 4711)
        self.clients = ControlClients(ListeningFile(self.path), served, lambda: self.supervisor.now)
        self.connected: list[socket.socket] = []

    async def reload(self, by: str) -> Mapping[str, object]:
        raise RuntimeError("not today")

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.connected.append(client)
        client.connect(self.path)
        client.setblocking(False)
        return client

    def turn(self) -> None:
        """Run the loop until nothing is ready."""
        for _ in range(10_000):
            poll = select.poll()
            for fd, events in self.clients.polled().items():
                poll.register(fd, events)
            ready = poll.poll(0)
            if not ready:
                return
            for fd, _ in ready:
                self.clients.ready(fd)
            self.supervisor.deliver()
        raise AssertionError("the loop does not come to rest")

    def pass_time(self, seconds: float) -> None:
        self.supervisor.pass_time(seconds)
        self.clients.expire()
        self.turn()

    def said(self, client: socket.socket) -> list[dict[str, Any]]:
        """Run the loop, and return the answers that a client gets."""
        data = b""
        while True:
            self.turn()
            try:
                more = client.recv(65536)
            except BlockingIOError:
                break
            if not more:
                break
            data += more
        return [json.loads(line) for line in data.splitlines()]

    def ended(self, client: socket.socket) -> bool:
        """Whether a client's connection is closed; what it was sent has been read."""
        self.turn()
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


@pytest.fixture
def polled(tmp_path: Path, descriptors_back: None) -> Iterator[Polled]:
    polled = Polled(tmp_path / "control.sock")
    yield polled
    polled.clients.close()
    assert not (tmp_path / "control.sock").exists()
    for client in polled.connected:
        client.close()


STATUS = b'{"command": "status"}\n'


def test_requests_are_answered_one_after_the_other(polled: Polled) -> None:
    client = polled.connect()
    client.send(STATUS + b'{"command": "pause", "id": "a"}\n{"command": "pau')
    first, second = polled.said(client)
    assert first["server"]["pid"] == 4711
    assert [one["number"] for one in first["server"]["workers"]] == [0, 1]
    assert second == {"ok": True}
    client.send(b'se", "id": "x"}\n')
    (third,) = polled.said(client)
    assert third["error"] == "unknown-listener"
    ((_, arguments),) = polled.supervisor.worker(1).requests
    assert arguments["by"] == f"uid {os.getuid()} (PID {os.getpid()})"


def test_client_waits_while_workers_are_asked(polled: Polled) -> None:
    polled.supervisor.worker(1).hung = True
    asking, other = polled.connect(), polled.connect()
    asking.send(STATUS)
    assert polled.said(asking) == []
    asking.send(b'{"command": "next"}\n')
    assert polled.said(asking) == []
    # Meanwhile others are answered, and nothing is polled in vain.
    other.send(b'{"command": "nothing"}\n')
    assert polled.said(other)[0]["error"] == "bad-request"
    polled.pass_time(REPORT_SECONDS)
    status, following = polled.said(asking)
    assert status["server"]["workers"][1]["responding"] is False
    assert following["error"] == "bad-request"


def test_client_that_goes_while_workers_are_asked(polled: Polled) -> None:
    polled.supervisor.worker(1).hung = True
    client = polled.connect()
    client.send(STATUS)
    polled.turn()
    client.close()
    polled.turn()
    polled.pass_time(REPORT_SECONDS)
    assert len(polled.clients.polled()) == 1


def test_answer_longer_than_the_socket_holds(polled: Polled) -> None:
    supervisor = polled.supervisor
    supervisor.listeners = [f"l{number}" for number in range(2000)]
    for worker in supervisor.workers.values():
        worker.states = dict.fromkeys(supervisor.listeners, worker.states["a"])
    client = polled.connect()
    client.send(STATUS)
    polled.turn()
    # It does not read yet: another client is served.
    other = polled.connect()
    other.send(b"x\n")
    assert polled.said(other)[0]["error"] == "bad-request"
    (found,) = polled.said(client)
    assert len(json.dumps(found)) > 1_000_000
    assert [one["id"] for one in found["listeners"]] == supervisor.listeners


def test_client_that_is_silent_or_does_not_read_is_closed(polled: Polled) -> None:
    silent, asking = polled.connect(), polled.connect()
    polled.turn()
    polled.pass_time(IDLE_TIMEOUT / 2)
    asking.send(STATUS)
    assert len(polled.said(asking)) == 1
    polled.pass_time(IDLE_TIMEOUT / 2)
    assert polled.ended(silent)
    assert not polled.ended(asking)
    assert polled.clients.deadline is not None
    polled.pass_time(IDLE_TIMEOUT / 2)
    assert polled.ended(asking)
    assert polled.clients.deadline is None


def test_line_that_is_too_long(polled: Polled) -> None:
    client = polled.connect()
    client.setblocking(True)
    client.sendall(b"x" * (MAX_REQUEST + 1))
    client.setblocking(False)
    (answer,) = polled.said(client)
    assert answer["error"] == "bad-request"
    assert polled.ended(client)


def test_too_many_clients(polled: Polled) -> None:
    clients = []
    for _ in range(MAX_CLIENTS):
        clients.append(polled.connect())
        polled.turn()
    surplus = polled.connect()
    assert polled.said(surplus)[0]["error"] == "busy"
    assert polled.ended(surplus)
    clients.pop().close()
    polled.turn()
    again = polled.connect()
    again.send(STATUS)
    assert polled.said(again)[0]["ok"]


def test_request_that_fails_is_answered_and_logged(
    polled: Polled, caplog: pytest.LogCaptureFixture
) -> None:
    client = polled.connect()
    client.send(b'{"command": "reload"}\n')
    assert polled.said(client) == [{"ok": False, "error": "failed", "message": "failed: not today"}]
    assert caplog.messages == ["control socket: RuntimeError('not today')"]
    assert polled.ended(client)


def test_no_descriptors_left(polled: Polled, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        fileno = polled.clients._file.sock.fileno

        def accept(self) -> None:
            raise OSError(24, "Too many open files")

    client = polled.connect()
    client.send(STATUS)
    with monkeypatch.context() as patch:
        patch.setattr(polled.clients._file, "sock", Full())
        polled.turn()  # it does not spin
    assert polled.clients.deadline == polled.supervisor.now + RETRY
    polled.pass_time(RETRY)
    assert polled.said(client)[0]["ok"]


@MAY_HAVE_THREADS
def test_forked_process_leaves_the_file_alone(polled: Polled, tmp_path: Path) -> None:
    client = polled.connect()
    polled.turn()

    ours = {client.fileno() for client in polled.connected}

    def left() -> bool:
        polled.clients.leave()
        return all(is_open(fd) == (fd in ours) for fd in mine)

    mine = [*ours, *polled.clients.polled()]
    assert exit_status(left) == 0
    assert (tmp_path / "control.sock").exists()
    client.send(STATUS)
    assert polled.said(client)[0]["ok"]
