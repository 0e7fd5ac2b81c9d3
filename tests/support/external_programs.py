"""Other programs as clients: run to their end, or driven by standard input and output."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.environment import own_environment
from support.waiting import PATIENCE

__all__ = ["Dialogue", "run", "talking", "which"]


class Dialogue:
    """A program driven by its standard input and output.

    Attributes:
        heard: its output so far, including standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.heard = b""

    def hear(self, pattern: bytes) -> bytes:
        """Wait until the output matches a pattern; return and remove it up to there."""
        assert self.process.stdout is not None
        ends = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.heard)):
            ready, _, _ = select.select([self.process.stdout], [], [], ends - time.monotonic())
            assert ready, self.heard
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.heard
            self.heard += data
        before, self.heard = self.heard[: found.end()], self.heard[found.end() :]
        return before

    def say(self, words: bytes, pattern: bytes) -> bytes:
        """Write to the program and wait for output that matches a pattern."""
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()
        return self.hear(pattern)

    def code(self, words: bytes) -> int:
        """Send an SMTP command; return the code of the reply."""
        return int(self.say(words, rb"(?m)^\d{3} .*\r\n").splitlines()[-1][:3])


@contextlib.contextmanager
def talking(*command: str | Path) -> Iterator[Dialogue]:
    """Run a program for a dialogue; check that it exits by itself with status 0."""
    path = which(str(command[0]))
    assert path is not None
    with subprocess.Popen(
        [path, *map(str, command[1:])],
        env=own_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        dialogue = Dialogue(process)
        try:
            yield dialogue
            assert process.stdout is not None
            dialogue.heard += process.stdout.read()
            assert process.wait(PATIENCE) == 0, dialogue.heard
        finally:
            process.kill()


def which(name: str) -> str | None:
    """Return the path of a program, looking in /usr/sbin too."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def run(
    *command: str | Path, feed: bytes | None = None, expect: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; check its exit status.

    Args:
        command: the program and its arguments.
        feed: its standard input; empty if None.
        expect: the expected exit statuses.
    """
    path = which(str(command[0]))
    assert path is not None
    done = subprocess.run(
        [path, *map(str, command[1:])],
        input=b"" if feed is None else feed,
        env=own_environment(),
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode in expect, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done
