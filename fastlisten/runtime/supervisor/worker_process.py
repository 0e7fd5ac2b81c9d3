"""What the supervisor knows about one worker process.

    STARTING ──ready──> READY ──serving──> SERVING ──stop or SIGTERM──> DRAINING ──> ended
        └────────────────┴──────────────────┴── crash ──────────────────────────────────┘

Rules of this file: one process, its channel and its end. It does not know about other workers.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.log_events import log
from fastlisten.runtime.supervisor.channel import Channel, ChannelError, ChannelFullError
from fastlisten.runtime.supervisor.lifecycle_messages import STOP
from fastlisten.runtime.supervisor.upgrade import unix_socket

__all__ = ["Ended", "State", "WorkerProcess"]

logger = logging.getLogger("fastlisten")


class State(enum.Enum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    READY = "ready"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process has ended.

    Attributes:
        code: its exit code, None if a signal ended it.
        signal: the name of that signal, empty if none did.
    """

    code: int | None
    signal: str = ""

    @classmethod
    def of(cls, status: int) -> Ended:
        """Return what a wait status (waitpid(2)) means."""
        if not os.WIFSIGNALED(status):
            return cls(os.waitstatus_to_exitcode(status))
        number = os.WTERMSIG(status)
        try:
            return cls(None, signal.Signals(number).name)
        except ValueError:  # a real-time signal
            return cls(None, f"signal {number}")

    def __str__(self) -> str:
        """Return the cause, as in `worker 2 (pid 71) has ended: ...`."""
        return self.signal or f"exit code {self.code}"


@dataclass(slots=True)
class WorkerProcess:
    """A process that serves, is about to, or drains.

    Attributes:
        key: identifies it within the life of the supervisor, unlike a process id.
        number: of the worker; a process that drains and its successor have the same.
        pid: its process id.
        channel: to it.
        state: as drawn above.
        began: when it began to serve, by the monotonic clock; 0 before.
        kill_at: when to kill it, if it has not ended by then; None: not at all.
        polled: the channel is open on its side.
    """

    key: int
    number: int
    pid: int
    channel: Channel
    state: State = State.STARTING
    began: float = 0.0
    kill_at: float | None = None
    polled: bool = field(default=True)

    def state_of(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to know of it, as a JSON value."""
        return {
            "key": self.key,
            "number": self.number,
            "pid": self.pid,
            "fd": self.channel.fileno(),
            "state": self.state.value,
            "began": self.began,
            "kill-at": self.kill_at,
            "polled": self.polled,
        }

    @classmethod
    def taken_over(cls, state: Mapping[str, Any]) -> WorkerProcess:
        """Return a process that a former program has forked in this process.

        Args:
            state: made by `state_of`.

        Raises:
            UpgradeError: its channel is something else.
        """
        channel = Channel(unix_socket(state["fd"], socket.SOCK_SEQPACKET), descriptors=0)
        return cls(
            state["key"],
            state["number"],
            state["pid"],
            channel,
            State(state["state"]),
            state["began"],
            state["kill-at"],
            polled=state["polled"],
        )

    @property
    def served(self) -> float:
        """How many seconds it has served."""
        return time.monotonic() - self.began if self.began else 0.0

    def stop(self, patience: float, *, at_once: bool = False) -> None:
        """Let it drain and end, or end at once.

        Args:
            patience: after how many seconds it is killed if it is still there.
            at_once: let it close all connections.
        """
        starting = self.state in (State.STARTING, State.READY)
        self.state = State.DRAINING
        kill_at = time.monotonic() + patience
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        if starting:
            # Its loop may not run yet, and then it does not read the channel.
            self.kill(signal.SIGTERM)
        try:
            self.channel.send(STOP, {"at_once": at_once})
        except ChannelFullError:
            # It reads late, because others have told it much, or it hangs, and `kill_at` ends it.
            self.kill(signal.SIGTERM)
        except ChannelError:
            return  # it has ended

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal. Its id is its own until the supervisor has waited for it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def log(self, level: int, event: str, text: str, *values: object, **fields: object) -> None:
        """Log something about it; the text begins with `worker %d (pid %d)`."""
        more = {"worker": self.number, "pid": self.pid, **fields}
        log(logger, level, event, text, self.number, self.pid, *values, **more)
