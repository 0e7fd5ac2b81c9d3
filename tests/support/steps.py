"""A child that is run instruction by instruction, to do something between two of them (ptrace(2)).

Rules of this file: x86-64 only. Elsewhere a step ends the reservation that atomic operations are
made with, so that they never succeed. The child must not be sent signals meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable

import pytest

from support.forked import Child

__all__ = ["Steps"]

_PEEKUSER, _CONT, _SINGLESTEP, _SEIZE, _INTERRUPT = 3, 7, 9, 0x4206, 0x4207
#: Where `struct user` (sys/user.h) has the address of the next instruction.
_RIP = 16 * 8
#: Instructions after which something does not happen any more: a call of a method is a few
#: thousand.
_MOST = 200_000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Steps:
    """Traces a child until its end; it goes on running until `stop`."""

    def __init__(self, child: Child) -> None:
        if platform.machine() != "x86_64":
            pytest.skip("steps are for x86-64")
        self._pid = child.pid
        try:
            self._call(_SEIZE)
        except PermissionError:
            pytest.skip("the kernel forbids tracing")

    def stop(self) -> None:
        """Stop the child, which may be in a system call."""
        self._call(_INTERRUPT)
        self._wait()

    def go_on(self) -> None:
        """Let the child run again."""
        self._call(_CONT)

    def until(self, condition: Callable[[], object]) -> int:
        """Step until a condition holds; return the address of the instruction that made it so."""
        for _ in range(_MOST):
            address = self._address()
            self._step()
            if condition():
                return address
        raise AssertionError(f"not within {_MOST} instructions")

    def until_before(self, address: int) -> None:
        """Step until an instruction is the next one."""
        for _ in range(_MOST):
            if self._address() == address:
                return
            self._step()
        raise AssertionError(f"not within {_MOST} instructions")

    def _step(self) -> None:
        self._call(_SINGLESTEP)
        self._wait()

    def _address(self) -> int:
        return self._call(_PEEKUSER, _RIP)

    def _wait(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        assert os.WIFSTOPPED(status), f"the child has ended with status {status}"

    def _call(self, request: int, address: int = 0) -> int:
        ctypes.set_errno(0)
        result: int = _libc.ptrace(request, self._pid, address, 0)
        if result == -1 and (number := ctypes.get_errno()):
            raise OSError(number, os.strerror(number))
        return result
