"""Runs wrk, an HTTP load generator: connections that repeat a request for a given time.

Rules of this file: it runs wrk and reads its report. A response other than 2xx or 3xx is an error,
not a fast operation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from benchmarks.process import PATIENCE, MeasurementError

__all__ = ["ask"]


def ask(port: int, core: int, seconds: float, options: Sequence[str]) -> tuple[int, float]:
    """Request ``/`` repeatedly; return the number of requests and the seconds they took.

    Args:
        port: the server's port on 127.0.0.1.
        core: the core that wrk runs on.
        seconds: for how long, rounded up to whole seconds.
        options: its other options: connections and so on.

    Raises:
        MeasurementError: wrk is not installed, or some requests failed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise MeasurementError("wrk is not installed")
    whole = max(1, round(seconds + 0.499))
    command = [program, "-t1", f"-d{whole}s", *options, f"http://127.0.0.1:{port}/"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE + whole,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    found = re.search(r"(\d+) requests in ([\d.]+)s", result.stdout)
    if result.returncode or found is None:
        raise MeasurementError(f"wrk failed: {result.stderr.strip() or result.stdout.strip()}")
    if wrong := re.search(r"Socket errors: .*|Non-2xx or 3xx responses: .*", result.stdout):
        raise MeasurementError(f"wrk: {wrong[0]}")
    return int(found[1]), float(found[2])
