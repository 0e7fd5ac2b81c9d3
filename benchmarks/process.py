"""The two processes of a measurement: a server on one core, the load generator on another.

Rules of this file: it starts processes, talks to them, reads /proc and ends them; it does not
interpret the numbers. If this process goes away, both end by themselves, because their standard
input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.build import LOADGEN, ROOT

__all__ = [
    "Load",
    "MeasurementError",
    "Server",
    "Usage",
    "descendants",
    "end_when_told",
    "memory_of",
    "usage_of",
]

#: Longest wait for a line from a child, in seconds: much longer than any run takes.
PATIENCE = 180.0

#: A server is idle when its CPU time has not changed for this many seconds.
QUIET = 0.01

TICK = os.sysconf("SC_CLK_TCK")


def end_when_told() -> None:
    """Make SIGTERM raise an exception, so that this program cleans up before it ends."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class MeasurementError(Exception):
    """A measurement that failed or would be wrong; the text says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time of a process since it began.

    Attributes:
        cpu: seconds on a core, user and kernel mode, all threads.
        user: the part of it in user mode, in seconds (clock ticks, scaled by the kernel).
        delay: seconds in which it was ready to run but waited for a core.
    """

    cpu: float
    user: float
    delay: float

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.user + other.user, self.delay + other.delay)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.cpu - other.cpu, self.user - other.user, self.delay - other.delay)


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, including zombies."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for one in found:
        found.extend(children.get(one, ()))
    return found


def usage_of(pid: int, *, children: bool = False) -> Usage:
    """Return the processor time of a process so far.

    From /proc/PID/task/*/schedstat, in nanoseconds; the split between user and kernel mode from
    /proc/PID/stat, which the kernel keeps by sampling.

    Args:
        pid: its number.
        children: include the time of children that have ended.
    """
    cpu = delay = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        on_core, waiting, _ = (task / "schedstat").read_text().split()
        cpu += int(on_core)
        delay += int(waiting)
    # The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, user_ended, system_ended = map(int, fields[11:15])
    if cpu == 0:  # a kernel without schedstat: 10 ms steps, enough for a run of seconds
        cpu = (user + system) * 1_000_000_000 // TICK
    if children:
        cpu += (user_ended + system_ended) * 1_000_000_000 // TICK
        user += user_ended
    return Usage(cpu / 1e9, user / TICK, delay / 1e9)


def memory_of(pid: int) -> dict[str, int]:
    """Return `Private_Dirty`, `Pss` and `AnonHugePages` of a process in bytes, from smaps_rollup.

    Raises:
        FileNotFoundError, ProcessLookupError: it has ended.
    """
    wanted = {"Private_Dirty", "Pss", "AnonHugePages"}
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in wanted:
            found[key] = int(value.split()[0]) * 1024
    return found


class Child:
    """A child process, pinned to one core or to none; parent and child exchange lines."""

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        self.command = list(command)
        # Standard error is inherited: a traceback of a candidate belongs on the screen.
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            bufsize=0,
            # An interrupt from the keyboard is this process's business; it ends its children.
            start_new_session=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    def read_line(self, patience: float = PATIENCE) -> str:
        """Return the next line of its output.

        Raises:
            MeasurementError: it ended, or said nothing for `patience` seconds.
        """
        output = self._pipe(self._process.stdout)
        until = time.monotonic() + patience
        while b"\n" not in self._rest:
            ready, _, _ = select.select([output], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise MeasurementError(f"no answer within {patience:.0f} s: {self.command}")
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                raise MeasurementError(f"ended with {self._process.wait()}: {self.command}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def read_json(self, patience: float = PATIENCE) -> Any:
        """Return the next line of its output, decoded."""
        return json.loads(self.read_line(patience))

    def tell(self, word: str) -> None:
        """Send it a line."""
        self._pipe(self._process.stdin).write(word.encode() + b"\n")

    def close(self) -> None:
        """End it by closing its input; kill it if that does not help."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Server(Child):
    """A candidate that serves; its port is known once the object exists.

    The first line that it prints is the port, followed by the id of the process that serves, if
    that is another one, and by the word "tree", if its descendants serve. A candidate that cannot
    serve prints a sentence that says why.

    Attributes:
        port: of 127.0.0.1.
        serving: the process that serves, or whose descendants do.
    """

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        super().__init__(command, core)
        try:
            line = self.read_line()
            port, *who = line.split()
            if not port.isdecimal():
                raise MeasurementError(line)
            self.port = int(port)
            self.serving = int(who[0]) if who else self.pid
            self._tree = who[1:] == ["tree"]
        except MeasurementError:
            self.close()
            raise

    def usage(self) -> Usage:
        """Return its processor time so far; for a tree, that of all its processes."""
        if not self._tree:
            return usage_of(self.serving)
        total = Usage(0.0, 0.0, 0.0)
        for pid in (self.serving, *descendants(self.serving)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += usage_of(pid, children=True)
        return total

    def settled(self) -> Usage:
        """Return its processor time once it is idle, or after a second."""
        until = time.monotonic() + 1.0
        before = self.usage()
        while time.monotonic() < until:
            time.sleep(QUIET)
            now = self.usage()
            if now.cpu - before.cpu < QUIET / 20:
                return now
            before = now
        return before

    def memory(self) -> dict[str, int]:
        """Return its memory as `memory_of` does; for a tree, that of all its processes.

        Raises:
            MeasurementError: it has ended.
        """
        if self._tree:
            total = dict.fromkeys(("Private_Dirty", "Pss", "AnonHugePages"), 0)
            for pid in (self.serving, *descendants(self.serving)):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    for key, value in memory_of(pid).items():
                        total[key] += value
            return total
        try:
            return memory_of(self.serving)
        except (FileNotFoundError, ProcessLookupError):
            raise MeasurementError(f"ended while serving: {self.command}") from None


class Load(Child):
    """A run of the load generator; its command line is documented by ``loadgen`` itself."""

    def __init__(self, mode: str, port: int, core: int | None, options: Sequence[str]) -> None:
        super().__init__([str(LOADGEN), mode, "--port", str(port), *options], core)

    def event(self, name: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the next line, which must report this event without errors.

        Raises:
            MeasurementError: another event, or connections that failed.
        """
        line: dict[str, Any] = self.read_json(patience)
        if line["event"] != name:
            raise MeasurementError(f"{name} expected, not {line}")
        failed = {kind: count for kind, count in line.get("errors", {}).items() if count}
        if failed:
            raise MeasurementError(f"connections failed: {failed}: {self.command}")
        return line
