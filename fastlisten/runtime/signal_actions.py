"""What signals mean to a server that is run by another program: stop, reload, or nothing.

Rules of this file: signals are the running loop's, for the time of a block. `fastlisten serve` has
handlers of its own, for its whole life (cli/program_signals.py), and comes here for what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Protocol

from fastlisten.log_events import log

__all__ = ["Signalled", "act_on_signal", "handle_signals"]

logger = logging.getLogger("fastlisten")

_STOPS = (signal.SIGTERM, signal.SIGINT)


class Signalled(Protocol):
    """What signals act on."""

    @property
    def started(self) -> bool:
        """It serves."""

    @property
    def stopping(self) -> bool:
        """It has been asked to stop."""

    def stop(self) -> None:
        """Stop; at once, if it is stopping already."""

    def reload(self) -> None:
        """Read certificates again."""


def act_on_signal(server: Signalled, number: signal.Signals) -> None:
    """Do what a signal asks for, and log it.

    SIGTERM and SIGINT stop the server, and a second one at once; SIGHUP reloads it; others do
    nothing.
    """
    if number in _STOPS:
        again = server.stopping
        _log(number, "closing at once" if again else "draining" if server.started else "stopping")
        server.stop()
    elif number == signal.SIGHUP:
        what = "reloading certificates; other configuration changes need a restart"
        _log(number, what)
        server.reload()
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
            # The loop restores Python's default, not what it found. None: not set by Python.
            if handler is not None:
                signal.signal(number, handler)


def _log(number: signal.Signals, what: str) -> None:
    name = number.name
    log(logger, logging.INFO, "signal-received", "%s: %s", name, what, signal=name)
