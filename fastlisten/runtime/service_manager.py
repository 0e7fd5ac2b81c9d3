"""Notifications to the service manager: ready, reloading, stopping, and the watchdog.

Rules of this file: the protocol of sd_notify(3), without libsystemd and without an event loop; the
process that the manager has started sends them. Without a manager (NOTIFY_SOCKET is not set)
nothing is sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

from fastlisten.log_events import log

__all__ = ["ServiceManager", "Watchdog"]

logger = logging.getLogger("fastlisten")

#: Seconds to wait for a manager that does not read. It usually reads at once.
_TIMEOUT = 1.0

#: Characters of a status line; systemctl shows one line.
_MAX_STATUS = 200


class ServiceManager:
    """Notifies the service manager that has started this process.

    Args:
        environ: the environment of the process.

    Attributes:
        watchdog: the seconds within which it expects a sign of life; 0 if it expects none.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An abstract name is written with @. Others, such as vsock:, are for virtual machines.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        if not self._address.startswith(("/", "\0")):
            self._address = ""
        self.watchdog = _watchdog(environ) if self._address else 0.0
        self._failed = False

    def ready(self, status: str) -> None:
        """The server has started, or a reload has ended."""
        self._send(f"READY=1\nSTATUS={status[:_MAX_STATUS]}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it. (Type=notify-reload waits for that.)"""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """The server has begun to stop."""
        self._send(f"STOPPING=1\nSTATUS={status[:_MAX_STATUS]}")

    def alive(self) -> None:
        """Send a sign of life; to be called at half of `watchdog`."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_TIMEOUT)
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                text = "cannot notify the service manager: %s"
                log(logger, logging.WARNING, "not-notified", text, error, error=str(error))


class Watchdog:
    """Sends signs of life from the running loop until `stop`; a loop that hangs sends none.

    Args:
        manager: receives them; nothing happens if it expects none.
    """

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if manager.watchdog:
            self._send()

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        # Half of it, as sd_watchdog_enabled(3) recommends.
        self._timer = self._loop.call_later(self._manager.watchdog / 2, self._send)
        self._manager.alive()


def _watchdog(environ: Mapping[str, str]) -> float:
    """Return the watchdog's timeout in seconds, 0 if there is none for this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or len(microseconds) > 18:
        return 0.0
    # It may be meant for another process, from which this one has inherited it.
    if environ.get("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 1e6
