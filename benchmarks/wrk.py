"""wrk, the load generator of HTTP: a number of connections that ask again as soon as they have
their answer, for a time.

Rules of this file: what it reports is read; an answer that is no success is an error and not a
fast operation.
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
    """Ask for ``/`` again and again; return requests and seconds.

    Args:
        port: of the server on 127.0.0.1.
        core: where it runs.
        seconds: for how long; wrk takes whole ones, so that it is rounded up.
        options: connections and the like.

    Raises:
        MeasurementError: it is not installed, or not all answers were good ones.
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
