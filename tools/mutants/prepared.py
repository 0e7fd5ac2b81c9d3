"""Runs of pytest in processes that have it imported already.

Rules of this file: nothing of the package may be imported before the fork. Starting an interpreter,
pytest and its plugins takes longer than most of the tests that notice a mutation.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.mutants.mutations import ROOT

__all__ = ["run_pytest"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "asyncio",
        "cryptography.x509",
        "httpx",
        "hypothesis.strategies",
        "pytest",
        "pytest_timeout",
        "schemathesis.pytest.plugin",
        "ssl",
        "uvloop",
    ]
)


def run_pytest(
    arguments: list[str], folder: Path, environment: Mapping[str, str], log: Path, seconds: float
) -> int | None:
    """Run pytest in a session of its own, all of which is killed at the end.

    Args:
        arguments: of pytest.
        folder: where it runs; the package is imported from there.
        environment: of the process.
        log: receives its output.
        seconds: how long it may take.

    Returns:
        Its status, negative for a signal, None if its time was over.
    """
    process = _CONTEXT.Process(
        target=_run, args=(arguments, str(folder), dict(environment), str(log))
    )
    process.start()
    assert process.pid is not None
    process.join(seconds)
    status = process.exitcode
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    process.close()
    return status


def _run(arguments: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for fd, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(name, flags, 0o644)
        os.dup2(opened, fd)
        os.close(opened)
    os.dup2(1, 2)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    import pytest

    # What has been imported before cannot be rewritten, and need not be.
    status = pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
