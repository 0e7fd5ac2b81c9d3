"""`fastlisten serve` with several workers, for tests of the supervisor.

Rules of this file: processes are found in /proc, not by what the program says about them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.environment import clean_environment
from support.kernel import ended
from support.program import ACCOUNTS, Program, program
from support.waiting import PATIENCE, until

__all__ = ["PATIENT", "WHO", "Workers", "workers"]

#: Code for `patched`: nobody gives up waiting for a worker or the supervisor before the test does.
PATIENT = f"""
from fastlisten.runtime.supervisor import remote_control, supervisor_control
for module in (remote_control, supervisor_control):
    module.REPORT_SECONDS = module.CHANGE_SECONDS = {PATIENCE}
"""

#: A listener whose handler says which process serves.
WHO = """
[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.told_handlers:Told"
"""


class Workers:
    """A supervisor and its workers.

    Attributes:
        program: the supervisor.
        directory: of the program's files, and of what handlers are told.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.directory = program.directory

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.program.process.pid

    @property
    def err(self) -> str:
        """What has been logged so far; a record may arrive a moment after what it is about."""
        return (self.directory / "err").read_text()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that have not ended, the oldest first."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [pid for pid in map(int, path.read_text().split()) if not ended(pid)]

    @property
    def serving(self) -> int:
        """How many times a worker has begun to serve so far."""
        return self.err.count(" serves")

    def serve(self, times: int) -> None:
        """Wait until workers have begun to serve that many times."""
        until(lambda: self.serving >= times, f"{times} workers that serve")

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def connect(self) -> socket.socket:
        """Return a new client."""
        address = ("127.0.0.1", self.program.port())
        return socket.create_connection(address, PATIENCE)

    def ask(self) -> int:
        """Return the process id of the worker that serves a new client."""
        with self.connect() as client:
            return int(line(client))

    def served_by(self, pid: int) -> socket.socket:
        """Return a client of this worker; the others are stopped meanwhile."""
        with stopped(*(one for one in self.pids if one != pid)):
            client = self.connect()
            assert int(line(client)) == pid
            return client

    def end(self) -> int:
        """Stop the server; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.program.ended()


def line(client: socket.socket) -> bytes:
    """Return what a client receives, up to the end of a line; empty at the end."""
    said = b""
    while not said.endswith(b"\n") and (got := client.recv(1)):
        said += got
    return said


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes while the block runs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            until(lambda pid=pid: _state(pid) == "T", "a stopped process")  # type: ignore[misc]
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    """Return the state of a process (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def workers(
    directory: Path,
    count: int,
    text: str = WHO,
    *,
    head: str = "",
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    accounts: str = ACCOUNTS,
    serve: bool = True,
) -> Iterator[Workers]:
    """Run a supervisor until the end of the block, at the latest.

    Args:
        directory: for its files.
        count: the number of workers.
        text: the listeners.
        head: keys of `[server]`.
        wrapper: a command that runs the program and becomes it (exec).
        environ: changes to the environment.
        accounts: the content of the accounts file.
        serve: wait until all workers serve.
    """
    text = f"workers = {count}\n{head}{text}"
    told = {"TOLD": str(directory), **(environ or {})}
    listeners = 1 if serve else -1
    more: dict[str, Any] = {"wrapper": wrapper, "environ": told, "accounts": accounts}
    with program(directory, text, listeners=listeners, **more) as started:
        found = Workers(started)
        pids: list[int] = []
        try:
            if serve:
                found.serve(count)
            yield found
            if started.process.poll() is None:
                pids = found.pids
        finally:
            if started.process.poll() is None:
                pids = pids or found.pids
                # Before the workers, which it would replace.
                found.signal(signal.SIGKILL)
                started.process.wait()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: ended(pid), "the end of a worker")  # type: ignore[misc]


def patched(directory: Path, code: str) -> dict[str, str]:
    """Return an environment in which the program runs this code when it imports `sitecustomize`."""
    (directory / "sitecustomize.py").write_text(code)
    path = clean_environment()["PYTHONPATH"]
    return {"PYTHONPATH": os.pathsep.join((str(directory), path))}
