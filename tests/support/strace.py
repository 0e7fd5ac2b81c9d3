"""Running the server program of support/traced_program.py under strace.

Rules of this file: a test that uses it is marked ``external("strace")``, and skipped if strace is
missing or the kernel forbids tracing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastlisten

HERE = Path(__file__).parent
#: The package that is tested, wherever it is installed.
PACKAGE = Path(fastlisten.__file__).parent


@functools.cache
def can_trace() -> bool:
    """Return whether strace is installed and allowed to trace."""
    if shutil.which("strace") is None:
        return False
    trial = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"]
    return subprocess.run(trial, capture_output=True).returncode == 0


class Traced:
    """The traced program.

    Attributes:
        addresses: the addresses of its listeners.
        lines: its log, once it has ended.
        statistics: the counters of its listeners, once it has ended.
        errors: their accept errors, by the name of the errno, once it has ended.
        calls: strace's lines, once it has ended.
    """

    addresses: list[tuple[str, int]]
    lines: list[str]
    statistics: list[dict[str, int]]
    errors: list[dict[str, int]]
    calls: list[str]


@contextlib.contextmanager
def traced(output: Path, strace: list[str], **arguments: Any) -> Iterator[Traced]:
    """Run the program for the length of a block.

    Args:
        output: the file for strace's lines.
        strace: options of strace.
        arguments: arguments of the program.
    """
    if not can_trace():
        pytest.skip("strace is missing or not allowed to trace")
    command = [
        *("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(output), "-e", "signal=none", *strace),
        *(sys.executable, str(HERE / "traced_program.py"), json.dumps(arguments)),
    ]
    program = Traced()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(HERE.parent)))},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            addresses = process.stdout.readline()
            assert addresses, f"the program ended with status {process.wait()}"
            program.addresses = [(host, port) for host, port in json.loads(addresses)]
            yield program
            process.stdin.close()
            answer = json.loads(process.stdout.read())
            assert process.wait() == 0
        finally:
            process.kill()
    program.lines, program.statistics = answer["lines"], answer["statistics"]
    program.errors = [
        {errno.errorcode[int(number)]: count for number, count in counts.items()}
        for counts in answer["accept_errors"]
    ]
    program.calls = output.read_text().splitlines()
