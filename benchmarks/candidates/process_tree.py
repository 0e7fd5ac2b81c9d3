"""What candidates of several processes share: they end with the program that measures them.

Rules of this file: nothing here runs per connection. A candidate ends when its standard input does,
and kills all its descendants then. If it is killed itself, its children get a signal from the
kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from typing import NoReturn

from benchmarks.process import descendants

__all__ = ["await_end", "end_with_parent", "give_up", "kill_descendants", "reap_orphans"]

# <sys/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

#: Loaded here, because `end_with_parent` runs between fork and exec.
_LIBC = ctypes.CDLL(None)


def give_up(reason: str) -> NoReturn:
    """Exit; print the reason in place of the port."""
    print(reason, flush=True)
    sys.exit(1)


def reap_orphans() -> None:
    """Make orphaned descendants children of this process, so that `kill_descendants` finds them."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent has ended; call it after fork."""
    _LIBC.prctl(PR_SET_PDEATHSIG, int(number))


def await_end() -> None:
    """Wait until standard input ends, or for SIGTERM.

    A signal that arrives just before a blocking read is handled after it. Its byte in this pipe is
    there in any case.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    while True:
        ready, _, _ = select.select([sys.stdin, read], [], [])
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            return


def kill_descendants() -> None:
    """Kill all descendants and wait for their ends."""
    # Orphans become our children, so new ones may appear while others end.
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.wait()
