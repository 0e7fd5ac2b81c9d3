"""Forks a process that has a channel to this one.

Rules of this file: whatever happens, the new process never returns into its parent's code.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from fastlisten.runtime.supervisor.channel import Channel

__all__ = ["fork"]

#: Signals that the new process must not handle as its parent would; it unblocks them.
_HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: The exit code of a process that could not even begin.
_FAILED: Final = 1


def fork(be: Callable[[Channel], NoReturn]) -> tuple[int, Channel]:
    """Fork a process.

    Args:
        be: called in it, with its end of the channel.

    Returns:
        Its id, and the end of this process.

    Raises:
        OSError: no process or descriptor left.
    """
    ours, theirs = Channel.pair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        try:
            ours.close()
            be(theirs)
        finally:
            os._exit(_FAILED)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return pid, ours
