"""SIGKILL at every system call that can change something, wherever the call is made, in C too.

Rules of this file: it runs in a process of its own (`python -m support.killed_calls MODULE:CLASS
DIRECTORY`) that forks a child for every number of calls. The child is traced with ptrace(2) and
killed when it enters the call, which is then not carried out. Between two of these calls, nothing
that outlives the process changes but memory that is shared, so that more kills would show nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

__all__ = ["Scenario", "killed_at_every_call"]

#: open, write, pwrite64, writev, openat, close, rename, renameat, renameat2, link, linkat, unlink,
#: unlinkat, mkdir, mkdirat, rmdir, ftruncate, fallocate, fsync, fdatasync, fcntl, flock, utimensat,
#: copy_file_range, sendfile, msync
_NUMBERS = {
    "x86_64": {
        *(2, 1, 18, 20, 257, 3, 82, 264, 316, 86, 265, 87, 263, 83, 258, 84, 77, 285, 74, 75),
        *(72, 73, 280, 326, 40, 26),
    },
    "aarch64": {
        *(64, 68, 66, 56, 57, 38, 276, 37, 35, 34, 46, 47, 82, 83, 25, 32, 88, 285, 71, 227),
    },
}

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 1 << 20
_ENTRY = 1  # ptrace_syscall_info.op
_libc = ctypes.CDLL(None, use_errno=True)


class Scenario(Protocol):
    """What is killed, and what must be true then."""

    def prepare(self, place: str) -> None:
        """Make what the work finds; it is not killed."""

    def work(self, place: str, tell: Callable[[str], None]) -> None:
        """Do the work; tell, line by line, what a client may be told."""

    def check(self, place: str, told: list[str], finished: bool) -> None:
        """Assert what must be true after a kill, or after all the work."""


def _ptrace(request: int, pid: int, address: int, data: object) -> int:
    result: int = _libc.ptrace(
        ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), data
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return result


def _run(work: Callable[[], None], last: int) -> bool:
    """Fork; kill the child at its call of number `last`; return whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _ptrace(_TRACEME, 0, 0, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            status = 0
        finally:
            os._exit(status)
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, 0, ctypes.c_void_p(_TRACESYSGOOD | _EXITKILL))
    info = (ctypes.c_uint64 * 11)()
    numbers = _NUMBERS[platform.machine()]
    count = 0
    while True:
        _ptrace(_SYSCALL, pid, 0, None)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the work failed"
            return True
        assert os.WIFSTOPPED(status), status
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            continue
        _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.byref(info))
        if info[0] & 0xFF == _ENTRY and info[3] in numbers:
            count += 1
            if count == last:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False


def _can_trace() -> bool:
    """Return whether the kernel lets a process trace its child."""
    if platform.machine() not in _NUMBERS:
        return False
    program = "from support.killed_calls import _run; _run(lambda: None, 1 << 30)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    return done.returncode == 0


def killed_at_every_call(scenario: str, *arguments: str) -> int:
    """Run a scenario; return how often it was killed.

    Args:
        scenario: ``module:class``, which is called without arguments.
        arguments: of the class.

    Raises:
        AssertionError: the work failed, or something was not true after a kill.
    """
    if not _can_trace():
        pytest.skip("tracing is not allowed")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        done = subprocess.run(
            [sys.executable, "-m", "support.killed_calls", scenario, directory, *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def main(name: str, directory: str, *arguments: str) -> int:
    """Kill a scenario's work after one call, two, and so on; return how often it was killed."""
    module, _, attribute = name.partition(":")
    scenario: Scenario = getattr(importlib.import_module(module), attribute)(*arguments)
    number = 0
    while True:
        number += 1
        place = f"{directory}/{number}"
        os.mkdir(place)
        told = Path(f"{place}.told")
        scenario.prepare(place)
        fd = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def tell(line: str, fd: int = fd) -> None:
            os.write(fd, f"{line}\n".encode())

        finished = _run(lambda place=place, tell=tell: scenario.work(place, tell), number)  # type: ignore[misc]
        os.close(fd)
        try:
            scenario.check(place, told.read_text().splitlines(), finished)
        except BaseException as error:
            error.add_note(f"killed at call {number}")
            raise
        shutil.rmtree(place)
        if finished:
            return number - 1


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
