"""Run a command as on a host without IPv6: its socket(AF_INET6, ...) fails with EAFNOSUPPORT.

Rules of this file: it needs no privilege and only the standard library. It does what systemd's
RestrictAddressFamilies= does: a seccomp filter (seccomp(2)), which survives execve.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

# sys/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_RET_ERRNO = 0x00050000

# linux/bpf_common.h: load a word at an offset; jump if equal; return.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06

# struct seccomp_data: number, architecture, instruction pointer, six arguments of 64 bits.
_NUMBER, _FIRST_ARGUMENT = 0, 16

#: The number of socket(2).
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_ipv6() -> None:
    """Forbid AF_INET6 sockets to this process and its children."""
    instructions = (
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, SOCKET_CALL[platform.machine()]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _SECCOMP_RET_ALLOW),
    )
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    forbid_ipv6()
    os.execvp(sys.argv[1], sys.argv[1:])
