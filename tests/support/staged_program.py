"""Programs that report their stages and wait there until the test lets them go on.

Rules of this file: no test in it. A stage is reached when its name arrives through a pipe, and left
when a line is sent back; nothing waits for a fixed time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from support.environment import clean_environment
from support.program import Program, program
from support.waiting import PATIENCE

#: The beginning of these programs' modules. `here` reports a stage; `pause` also waits for a line.
PRELUDE = """
import os, signal, sys, time
def here(where):
    os.write(int(os.environ["SAID"]), (where + "\\n").encode())
def pause(where):
    here(where)
    os.read(int(os.environ["HEARD"]), 1)
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await lifespan()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
async def lifespan():
    pass
"""

CONFIG = """
[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
app = "staged:app"
tls.enable = false
"""


class Staged:
    """A program that waits at its stages.

    Attributes:
        program: the program.
    """

    def __init__(self, program: Program, said: int, heard: int) -> None:
        self.program = program
        self._said = said
        self._heard = heard
        self._lines = b""

    def reached(self) -> str:
        """Wait for the next stage; return its name, or "" at the end of the program."""
        while b"\n" not in self._lines:
            ready, _, _ = select.select([self._said], [], [], PATIENCE)
            assert ready, self.program.err
            data = os.read(self._said, 4096)
            if not data:
                return ""  # its standard error tells why
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    def go_on(self) -> None:
        """Let the program leave its stage."""
        os.write(self._heard, b"\n")


@contextlib.contextmanager
def staged(
    directory: Path,
    source: str,
    *,
    text: str = CONFIG,
    name: str = "staged",
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Staged]:
    """Run `fastlisten serve` with a module from the test.

    Args:
        directory: the directory for all files.
        source: the module's source, after `PRELUDE`.
        text: the configuration.
        name: the module's name.
        wrapper: a command that runs the program.
        environ: changes to the environment.
    """
    modules = directory / "modules"
    modules.mkdir(exist_ok=True)
    (modules / f"{name}.py").write_text(PRELUDE + textwrap.dedent(source), "utf-8")
    said, say = os.pipe()
    hear, heard = os.pipe()
    path = f"{modules}{os.pathsep}{clean_environment()['PYTHONPATH']}"
    try:
        with program(
            directory,
            text,
            listeners=-1,
            wrapper=wrapper,
            environ={"PYTHONPATH": path, "SAID": str(say), "HEARD": str(hear), **(environ or {})},
            pass_fds=(say, hear),
        ) as started:
            os.close(say)
            say = -1
            yield Staged(started, said, heard)
    finally:
        for fd in (said, say, hear, heard):
            if fd >= 0:
                os.close(fd)


STOPS = [signal.SIGTERM, signal.SIGINT]


OTHERS = [signal.SIGUSR1, signal.SIGUSR2]


_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _can_be_pid_1() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([*_PID_1, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


WRAPPERS = pytest.mark.parametrize(
    "wrapper",
    [
        pytest.param((), id="process"),
        pytest.param(
            _PID_1,
            id="PID 1",
            marks=[
                pytest.mark.netns,
                pytest.mark.skipif(not _can_be_pid_1(), reason="needs root and PID namespaces"),
            ],
        ),
    ],
)
