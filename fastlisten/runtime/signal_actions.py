"""Signals of a server: stop or reload it; others are only logged.

Rules of this file: signal handlers are installed on the running loop, for the duration of a block.
`fastlisten serve` has its own handlers for the whole life of the process
(cli/program_signals.py), and uses only `act_on_signal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Protocol

from fastlisten.log_events import log

__all__ = ["SignalTarget", "act_on_signal", "handle_signals"]

logger = logging.getLogger("fastlisten")

_STOPS = (signal.SIGTERM, signal.SIGINT)


class SignalTarget(Protocol):
    """What `act_on_signal` needs of a server."""

    @property
    def started(self) -> bool:
        """Whether it is serving."""

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""

    def stop(self) -> None:
        """Stop; close everything at once if it is already stopping."""

    def reload(self) -> object:
        """Begin to reload the configuration."""


def act_on_signal(server: SignalTarget, number: signal.Signals) -> None:
    """Do what a signal asks for, and log it.

    SIGTERM and SIGINT stop the server, the second one at once. SIGHUP reloads a server that is
    running. Others have no effect.
    """
    if number in _STOPS:
        again = server.stopping
        _log(number, "closing at once" if again else "draining" if server.started else "stopping")
        server.stop()
    elif number == signal.SIGHUP and not server.started:
        _log(number, "reloading when the start is complete")
    elif number == signal.SIGHUP and not server.stopping:
        _log(number, "reloading")
        server.reload()
    elif number == signal.SIGHUP:
        _log(number, "ignored while draining")
    else:
        _log(number, "ignored")


@contextlib.contextmanager
def handle_signals(receive: Callable[[signal.Signals], object]) -> Iterator[None]:
    """Call `receive` on the running loop for SIGTERM, SIGINT and SIGHUP while the block runs."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (*_STOPS, signal.SIGHUP)}
    for number in before:
        loop.add_signal_handler(number, receive, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # The loop restores Python's default handler, not the previous one. None: not set by
            # Python.
            if handler is not None:
                signal.signal(number, handler)


def _log(number: signal.Signals, what: str) -> None:
    name = number.name
    log(logger, logging.INFO, "signal-received", "%s: %s", name, what, signal=name)
