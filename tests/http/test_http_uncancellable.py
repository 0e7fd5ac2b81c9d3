"""Applications that swallow cancellation when the program ends: bounded, logged, exit code 1.

Rules of this file: each case is a process of its own, since what is tested is how it ends. The
application's module shortens the times that are waited.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import clean_environment
from support.http import GET
from support.program import Program, program
from support.waiting import PATIENCE, until

APPLICATIONS = """\
import asyncio
import fastlisten.cli.bounded_runner
import fastlisten.handlers.http.handler
import fastlisten.handlers.http.lifespan
from support.scripted_lifespan import STARTED, ScriptedLifespan, message

fastlisten.cli.bounded_runner.CANCEL_PATIENCE = 0.1
fastlisten.handlers.http.handler._TASK_PATIENCE = 0.1
fastlisten.handlers.http.lifespan.CANCEL_PATIENCE = 0.1
fastlisten.handlers.http.lifespan.SHUTDOWN_PATIENCE = 0.2

async def forever():
    print("it has begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

class Stubborn(ScriptedLifespan):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            if self.then:
                await forever()
        else:
            await forever()

def stubborn(*steps, then=True):
    made = Stubborn(*steps)
    made.then = then
    return made

startup = stubborn("receive")
failed = stubborn("receive", message("startup.failed", "no database"))
never_asks = stubborn(*STARTED[:-1])
shutdown = stubborn(*STARTED)
complete = stubborn(*STARTED, message("shutdown.complete"))
request = stubborn(*STARTED, message("shutdown.complete"), then=False)
"""

CONFIG = """\
shutdown-timeout = "1s"
[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
app = "stubborn_applications:{name}"
"""

LEFT = "ERROR fastlisten: ending although 1 task ignores cancellation: forever ("


@contextlib.contextmanager
def serving(directory: Path, name: str, listeners: int) -> Iterator[Program]:
    (directory / "stubborn_applications.py").write_text(APPLICATIONS)
    environ = {"PYTHONPATH": f"{directory}:{clean_environment()['PYTHONPATH']}"}
    config = CONFIG.format(name=name)
    with program(directory, config, listeners=listeners, environ=environ) as it:
        yield it


def check_end(it: Program, code: int, *words: str) -> None:
    assert it.ended() == code
    for each in (*words, LEFT):
        assert it.err.count(each) == 1, it.err
    assert "Traceback" not in it.err
    assert "Task was destroyed" not in it.err


def test_stop_during_a_startup_that_swallows_cancellation(tmp_path: Path) -> None:
    with serving(tmp_path, "startup", -1) as it:
        until(lambda: "it has begun" in it.out, "the startup")
        it.signal(signal.SIGTERM)
        check_end(it, 1, "SIGTERM: stopping")


def test_failed_startup_that_does_not_return(tmp_path: Path) -> None:
    with serving(tmp_path, "failed", 0) as it:
        check_end(it, 3, "cannot start: the application failed to start: no database")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never_asks", "failed: the application has not finished its shutdown within 0.2 s"),
        ("shutdown", "failed: the application has not finished its shutdown within 0.2 s"),
        ("complete", "failed: the application ignores the cancellation of its lifespan"),
    ],
)
def test_shutdown_that_swallows_cancellation(tmp_path: Path, name: str, words: str) -> None:
    with serving(tmp_path, name, 1) as it:
        it.signal(signal.SIGTERM)
        check_end(it, 1, words)


def test_request_that_swallows_cancellation(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "request", 1) as it,
        socket.create_connection(("127.0.0.1", it.port("it")), PATIENCE) as client,
    ):
        client.sendall(GET)
        until(lambda: "it has begun" in it.out, "the request")
        it.signal(signal.SIGTERM)
        check_end(it, 1, 'listener "it": cancelling 1 task that the application left running')
