"""Network namespaces for tests: separate hosts, with any addresses.

Rules of this file: no test in it. A namespace lives as long as its object; entering it moves the
calling thread, and with it the processes and threads that it starts.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType

import pytest

__all__ = ["Namespace", "needs_netns", "why_not"]

# sched.h; os.unshare and os.setns exist from Python 3.12 on only.
_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def why_not() -> str:
    """Return why this process cannot create network namespaces; empty if it can."""
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        _check(_libc.setns(before, _CLONE_NEWNET))
    except OSError as error:
        return f"this machine allows no network namespaces: {error}"
    finally:
        os.close(before)
    return ""


def needs_netns() -> list[pytest.MarkDecorator]:
    """Return the marks of tests that need a namespace; for `pytestmark`."""
    reason = why_not()
    return [pytest.mark.netns, pytest.mark.skipif(bool(reason), reason=reason)]


class Namespace:
    """A network namespace with its loopback interface up; ``with namespace:`` moves there.

    Attributes:
        fd: a descriptor of the namespace.
    """

    def __init__(self) -> None:
        self._before: list[int] = []
        before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(_CLONE_NEWNET))
            self.fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            _check(_libc.setns(before, _CLONE_NEWNET))
        finally:
            os.close(before)
        self.ip("link set lo up")

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Namespace]:
        """Create a namespace, and release it at the end of the block."""
        namespace = cls()
        try:
            yield namespace
        finally:
            os.close(namespace.fd)

    def __enter__(self) -> Namespace:
        self._before.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
        _check(_libc.setns(self.fd, _CLONE_NEWNET))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._before.pop()
        try:
            _check(_libc.setns(before, _CLONE_NEWNET))
        finally:
            os.close(before)

    def ip(self, *commands: str) -> None:
        """Run ip(8) with the words of each command."""
        with self:
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True, timeout=20)

    def sysctl(self, name: str, value: int) -> None:
        """Set a kernel parameter below /proc/sys/net of this namespace."""
        with self:
            Path("/proc/sys/net", *name.split(".")).write_text(str(value))

    def connect(self, other: Namespace, name: str, other_name: str) -> None:
        """Connect two namespaces by a pair of interfaces (veth), and bring both up."""
        there = f"/proc/{os.getpid()}/fd/{other.fd}"
        self.ip(f"link add {name} type veth peer name {other_name} netns {there}")
        self.ip(f"link set {name} up")
        other.ip(f"link set {other_name} up")
