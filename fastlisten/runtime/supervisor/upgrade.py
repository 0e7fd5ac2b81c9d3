"""An upgrade: the supervisor becomes the program that is on disk now, and stays the same process.

    request ──> check, by the new program ──> state and descriptors ──> execve(2) ──> taken over
                  │ refused                     │ execve fails                          │
                  └──> as before                └──> as before                          └──> restart

The process keeps its id, and so its children: workers of the former program serve until the restart
replaces them. What the new program needs is in a sealed memfd, as JSON; descriptors keep their
numbers, and are asked what they are.

Rules of this file: the check, the exec, and the form of what is passed on; each part of the
supervisor writes and reads its own state. The new program decides whether it can take over, as long
as the former one still serves: after execve(2) there is no way back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from fastlisten._arena import ARENA_VERSION
from fastlisten.config import Config
from fastlisten.errors import FastlistenError
from fastlisten.runtime.control_socket.socket_file import default_path
from fastlisten.runtime.supervisor.channel import sealed

__all__ = [
    "CHECK_SECONDS",
    "SIGNALS",
    "VARIABLE",
    "Check",
    "UpgradeError",
    "become",
    "differences",
    "passed_state",
    "shape",
    "unix_socket",
]

#: The form of the state and of the messages between supervisor and workers; raised when one of them
#: changes so that another version would not understand it.
_FORM: Final = 7

#: Names the memfd: ``PID:DESCRIPTOR``. With the id it has no meaning for other processes that
#: inherit it.
VARIABLE: Final = "FASTLISTEN_UPGRADE"

#: The key of the process's name in the state.
_NAME: Final = "process-name"

#: This process's name: proc(5). Its children inherit it.
_COMM: Final = "/proc/self/comm"

#: Seconds that the new program has for the check.
CHECK_SECONDS: Final = 60.0

#: What is blocked during the exec, and stays pending until the new program can handle it.
SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)

#: The most octets of the check's output that are passed on; its last lines sum it up.
_MAX_OUTPUT = 4096


class UpgradeError(FastlistenError):
    """The program cannot be upgraded, or cannot take over; the text says why."""


# --- what must be the same before and afterwards --------------------------------------------------


def shape(config: Config) -> dict[str, Any]:
    """Return what an upgrade cannot change, as a JSON value: keys, and what they are set to."""
    found: dict[str, Any] = {
        "the form of the state": _FORM,
        "the version of the shared memory": ARENA_VERSION,
        "server.workers": config.workers,
        "server.total-connections": config.process["server.total-connections"],
        "server.control-socket": default_path(config),
    }
    for settings in config.listeners:
        found[f"listener.{settings.id}.bind"] = [bind.text for bind in settings.bind]
        found[f"listener.{settings.id}.reserve"] = settings["reserve"]
        found[f"listener.{settings.id}.socket.reuse-port"] = settings["socket.reuse-port"]
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return why a program cannot take over, a sentence each.

    Args:
        before: the `shape` of the server that runs.
        now: that of the program that is to take over.
    """
    found = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if old != new:
            values = f"{_plain(new)}, and {_plain(old)} in the running server"
            found.append(f"{key} is {values}: {_remedy(key, old, new)}")
    return found


def _remedy(key: str, old: object, new: object) -> str:
    """Return what makes a key the same before and afterwards."""
    changes = None not in (old, new)  # else a listener has come or gone
    if key.startswith("listener.") and (not changes or key.endswith(".bind")):
        return "run fastlisten reload first"
    return "that needs a stop and a start"


def _plain(value: object) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


# --- the check ------------------------------------------------------------------------------------


class Check:
    """The new program, which checks whether it can take over.

    Args:
        command: the program, without its arguments.
        file: the configuration; empty for the embedded default.
        before: the `shape` of the running server.

    Attributes:
        deadline: when it is given up, by the monotonic clock.

    Raises:
        OSError: it cannot be run.
    """

    def __init__(self, command: Sequence[str], file: str, before: Mapping[str, Any]) -> None:
        self.deadline = time.monotonic() + CHECK_SECONDS
        self._output = os.memfd_create("fastlisten-check", os.MFD_CLOEXEC)
        try:
            given = sealed(json.dumps(before).encode())
            try:
                os.lseek(given, 0, os.SEEK_SET)
                # It has only the streams: no descriptor of the supervisor is inheritable.
                self._process = subprocess.Popen(  # noqa: S603
                    [*command, "upgrade-check", *([file] if file else [])],
                    stdin=given,
                    stdout=self._output,
                    stderr=self._output,
                )
            finally:
                os.close(given)
        except BaseException:
            os.close(self._output)
            raise

    def ended(self) -> bool:
        """Tell whether the new program can take over; false while it is not known.

        Raises:
            UpgradeError: it cannot.
        """
        code = self._process.poll()
        if code is None:
            if self.deadline <= time.monotonic():
                text = f"the new program has not ended its check within {CHECK_SECONDS:g} s"
                raise UpgradeError(text)
            return False
        if code != 0:
            cause = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise UpgradeError(f"the new program cannot take over ({cause}):\n{self.output}")
        return True

    @property
    def output(self) -> str:
        """The last lines of what it has printed."""
        size = os.fstat(self._output).st_size
        said = os.pread(self._output, _MAX_OUTPUT, max(0, size - _MAX_OUTPUT))
        return said.decode("utf-8", "backslashreplace").strip()

    def leave(self) -> None:
        """Close what belongs to it, in a forked process."""
        os.close(self._output)

    def end(self) -> None:
        """Kill it if it still runs, and wait for it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._output)


# --- the exec -------------------------------------------------------------------------------------


def become(
    command: Sequence[str], state: Mapping[str, Any], descriptors: Iterable[int]
) -> UpgradeError:
    """Become another program, or return why that is not possible.

    Args:
        command: the program with its arguments.
        state: can be encoded as JSON.
        descriptors: that it inherits; they stay what they were if this fails.
    """
    inherited: list[int] = []
    try:
        memfd = sealed(json.dumps({**state, _NAME: _process_name()}).encode())
        try:
            for fd in (memfd, *descriptors):
                inherited.append(fd)
                os.set_inheritable(fd, True)
            environ = {**os.environ, VARIABLE: f"{os.getpid()}:{memfd}"}
            os.execve(command[0], list(command), environ)  # noqa: S606
        finally:
            for fd in inherited:
                os.set_inheritable(fd, False)
            os.close(memfd)
    except (OSError, ValueError) as error:
        return UpgradeError(f"the new program cannot be run: {error}")


def passed_state(environ: MutableMapping[str, str] = os.environ) -> dict[str, Any] | None:
    """Return what a former program has passed to this one in this process; None if none has.

    The variable is removed from the environment, so workers and programs don't inherit it.

    Raises:
        UpgradeError: it cannot be used.
    """
    pid, _, number = environ.pop(VARIABLE, "").partition(":")
    if pid != str(os.getpid()) or not (number.isascii() and number.isdigit()):
        return None
    fd = int(number)
    try:
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            raise UpgradeError(f"{VARIABLE}: not what a former program has passed")
        os.set_inheritable(fd, False)
        with open(fd, "rb") as file:
            file.seek(0)
            state = json.load(file)
    except (OSError, ValueError) as error:
        raise UpgradeError(f"{VARIABLE}: {error}") from None
    if not isinstance(state, dict):
        raise UpgradeError(f"{VARIABLE}: not what a former program has passed")
    _name_process(state.pop(_NAME, ""))
    return state


def _process_name() -> str:
    """Return the name of this process, an empty text if there is no /proc."""
    try:
        with open(_COMM, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().removesuffix("\n")
    except OSError:
        return ""


def _name_process(name: str) -> None:
    """Give this process a name again, by which `pgrep` and monitors find it.

    execve(2) has named it after the interpreter; a script that the kernel starts has its own name.
    """
    if name:
        with contextlib.suppress(OSError), open(_COMM, "wb") as file:
            file.write(name.encode("utf-8", "surrogateescape"))


def unix_socket(fd: int, kind: socket.SocketKind) -> socket.socket:
    """Return the connected or listening Unix socket of a descriptor, no longer inheritable.

    Raises:
        UpgradeError: it is something else.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise UpgradeError(f"descriptor {fd}: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != kind:
        sock.detach()
        raise UpgradeError(f"descriptor {fd} is not the socket that it was")
    os.set_inheritable(fd, False)
    return sock
