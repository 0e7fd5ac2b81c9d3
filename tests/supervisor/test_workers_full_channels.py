"""A worker that does not read until its channel is full: nothing blocks, and it catches up.

Rules of this file: the program is real, and the worker is stopped with SIGSTOP. That its channel is
full is known from the supervisor, which counts the messages that did not fit. Commands are lines on
the control socket. The supervisor waits for answers for a moment only, so that a command which the
stopped worker does not answer does not take seconds.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.figures import show
from support.waiting import PATIENCE, until
from support.workers import WHO, Workers, line, patched, stopped, workers

WORKERS = 4

#: More than a channel holds.
COMMANDS = 300

STATES = {"pause": "paused", "resume": "listening"}

#: The supervisor does not wait long for answers, and all write down what they send, and what does
#: not fit.
IMPATIENT = """
import os
from pathlib import Path

from fastlisten.runtime.supervisor import channel, supervisor_control

supervisor_control.CHANGE_SECONDS = supervisor_control.REPORT_SECONDS = 0.02
supervisor_control._ASK_AGAIN = 0.1
send = channel.Channel.send

def note(file, kind, body):
    with (Path(os.environ["TOLD"]) / file).open("a") as file:
        file.write(f"{kind} {body.get('method')}\\n")

def counting(self, kind, body, fds=()):
    try:
        send(self, kind, body, fds)
    except channel.ChannelFullError:
        note("full", kind, body)
        raise
    note("sent", kind, body)

channel.Channel.send = counting
"""


class Commands:
    """A client of the control socket.

    Attributes:
        answers: all answers so far.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.answers: list[Any] = []

    def ask(self, command: str, **more: object) -> Any:
        """Send a command; return the answer."""
        self._sock.sendall(json.dumps({"command": command, **more}).encode() + b"\n")
        self.answers.append(json.loads(line(self._sock)))
        return self.answers[-1]

    def listener(self) -> Any:
        (found,) = self.ask("status")["listeners"]
        return found


@contextlib.contextmanager
def commanded(directory: Path) -> Iterator[tuple[Workers, Commands]]:
    head = f'control-socket = "{directory / "control"}"\n'
    environ = patched(directory, IMPATIENT)
    text = f"{WHO}max-connections = 1000\n"
    with (
        workers(directory, WORKERS, text, head=head, environ=environ) as four,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.connect(str(directory / "control"))
        yield four, Commands(sock)


def requests(file: Path) -> list[str]:
    """Return the requests to workers that a file lists."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [one.removeprefix("control-request ") for one in lines if "control-request" in one]


@pytest.mark.parametrize("last", STATES)
def test_worker_catches_up_after_its_channel_was_full(tmp_path: Path, last: str) -> None:
    with commanded(tmp_path) as (four, commands):
        pid = four.pids[1]
        with stopped(pid):
            for number in range(COMMANDS):
                commands.ask(("pause", "resume")[number % 2], id="it")
                assert commands.ask("limit", id="it", limit=2000 + number)["ok"]
                commands.ask("status")
                if number % 100 == 1:
                    assert four.ask() != pid
            commands.ask(last, id="it")
            commands.ask("limit", id="it", limit=3)
            lost = requests(tmp_path / "full")
            assert {"pause", "resume", "reports"} <= set(lost)
            assert "apply" not in requests(tmp_path / "sent")
        # It reads everything, the last state of the listener at the end.
        until(lambda: "apply" in requests(tmp_path / "sent"), "what it has missed")
        until(lambda: not commands.listener()["stale-workers"], "an answer of the worker")
        found = commands.listener()
        assert (found["state"], found["limit"]) == (STATES[last], 3)
        if last == "pause":
            with four.connect() as client:
                assert commands.listener()["connections"] == 0
                assert commands.ask("resume", id="it")["ok"]
                assert int(line(client)) in four.pids
        with contextlib.ExitStack() as stack:
            for one in (pid, *four.pids[:1], pid):
                stack.enter_context(four.served_by(one))
            with four.connect() as client:
                assert line(client) == b"refused: limit\n"
        assert four.end() == 0
    done = sum(one["ok"] for one in commands.answers)
    show(
        f"{len(commands.answers):,} commands with a worker of {WORKERS} stopped, all answered, "
        f"{len(lost)} messages to it did not fit",
        f"{done} done",
    )
