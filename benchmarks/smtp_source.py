"""smtp-source, the load generator of Postfix, as a second opinion beside our own.

Rules of this file: it sends a number of messages, one per session, and says nothing but whether
all of them were taken; the time is ours to measure. It does not pipeline.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from benchmarks.process import PATIENCE, MeasurementError

__all__ = ["send"]

#: Where distributions put the programs of a server's administrator.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def send(port: int, core: int, messages: int, options: Sequence[str]) -> float:
    """Send messages and return the seconds that it took, the program's start included.

    Args:
        port: of the server on 127.0.0.1.
        core: where it runs.
        messages: how many.
        options: sessions at a time, length of a message and the like.

    Raises:
        MeasurementError: it is not installed, or not all messages were taken.
    """
    program = shutil.which("smtp-source", path=PATH)
    if program is None:
        raise MeasurementError("smtp-source (of Postfix) is not installed")
    addresses = ["-M", "client.example.com", "-f", "sender@example.com", "-t", "alice@example.org"]
    command = [program, *options, "-m", str(messages), *addresses, f"inet:127.0.0.1:{port}"]
    begun = time.monotonic()
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if result.returncode != 0:
        raise MeasurementError(f"smtp-source failed: {result.stderr.strip()}")
    return time.monotonic() - begun
