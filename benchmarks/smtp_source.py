"""Runs smtp-source, Postfix's load generator, to cross-check our own.

Rules of this file: smtp-source sends a number of messages, one per session, without pipelining, and
only reports whether all were accepted; the time is measured here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from benchmarks.process import PATIENCE, MeasurementError

__all__ = ["send"]

#: Where distributions put administrators' programs.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def send(port: int, core: int, messages: int, options: Sequence[str]) -> float:
    """Send messages; return how many seconds that took, including the program's start.

    Args:
        port: the server's port on 127.0.0.1.
        core: the core that smtp-source runs on.
        messages: number of messages.
        options: its other options: sessions at a time, length of a message and so on.

    Raises:
        MeasurementError: smtp-source is not installed, or not all messages were accepted.
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
