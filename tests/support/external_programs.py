"""Programs of others as clients: run to their end, or talked to by standard input and output."""

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
    """A program that is talked to by its standard input and output.

    Attributes:
        heard: what it has written so far, errors included.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.heard = b""

    def hear(self, pattern: bytes) -> bytes:
        """Wait until what it writes matches a pattern; return what came up to it and drop it."""
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
        """Write to it and wait for an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()
        return self.hear(pattern)

    def code(self, words: bytes) -> int:
        """Say a command of SMTP; return the code of the answer."""
        return int(self.say(words, rb"(?m)^\d{3} .*\r\n").splitlines()[-1][:3])


@contextlib.contextmanager
def talking(*command: str | Path) -> Iterator[Dialogue]:
    """Talk to a program; at the end of the block it must have ended by itself, with 0."""
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
    """Return the path of a program, in the administrator's part of the path, too."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def run(
    *command: str | Path, feed: bytes | None = None, expect: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; its exit code must be an expected one.

    Args:
        command: the program and its arguments.
        feed: what it reads on its standard input; nothing if None.
        expect: the exit codes.
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
