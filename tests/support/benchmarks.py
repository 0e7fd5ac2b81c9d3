"""The benchmarks' programs, compiled and run.

Rules of this file: no test in it, and nothing that measures speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.kernel import ended
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]

#: For modules whose tests need the benchmarks.
BESIDE = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not beside the tests"
)

#: For tests that measure something, however short.
TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


def python(*words: str) -> bytes:
    """Run Python where the benchmarks can be imported; return its output."""
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=100
    ).stdout


@cache
def built() -> dict[str, str]:
    """Compile the programs; return their paths, and why there is no TLS."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    command = (
        "from benchmarks.build import *; import json; no_tls = build(); print(json.dumps({"
        "'server': str(SERVER), 'loadgen': str(LOADGEN), 'tls_server': str(TLS_SERVER), "
        "'smtp_server': str(SMTP_SERVER), 'no_tls': no_tls}))"
    )
    found: dict[str, str] = json.loads(python("-c", command))
    return found


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Run a server and yield its port; check that it exits cleanly when its input ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip()
    assert server.returncode == 0


def load(program: str, port: str | int, *words: str) -> dict[str, Any]:
    """Run the load generator to its end; return its last line."""
    result = subprocess.run(
        [program, *words, "--port", str(port), "--sources", "3", "--duration", "20"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    done: dict[str, Any] = json.loads(result.stdout)
    assert done["event"] == "done"
    return done


def await_ends(pids: list[int]) -> None:
    """Wait until all processes have ended."""
    until(lambda: all(map(ended, pids)), "the ends of processes")
