"""What a supervisor does at fixed times: signs of life for the service manager, and once a day a
look at the certificates.

Rules of this file: no event loop; the supervisor asks when something is due. (A server in one
process does the same with timers of its loop: `Watchdog`, `ExpiryCheck`.)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.tls.certificates import Certificates
from fastlisten.runtime.tls.expiry_check import INTERVAL, log_date_warnings

__all__ = ["Upkeep"]


class Upkeep:
    """Nothing is due before `begin`.

    Args:
        manager: receives signs of life if it expects them.
        certificates: returns those that are in use.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        manager: ServiceManager,
        certificates: Callable[[], Certificates],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._certificates = certificates
        self._clock = clock
        self._sign_at: float | None = None
        self._look_at: float | None = None

    def begin(self) -> None:
        """The server is ready: begin to count."""
        now = self._clock()
        self._look_at = now + INTERVAL
        if self._manager.watchdog:
            self._sign_at = now
            self.act()

    @property
    def deadline(self) -> float | None:
        """When to call `act`, by the clock; None if nothing is to be done."""
        times = (self._sign_at, self._look_at)
        return min((one for one in times if one is not None), default=None)

    def act(self) -> None:
        """Do what is due."""
        now = self._clock()
        if self._sign_at is not None and self._sign_at <= now:
            self._sign_at = now + self._manager.watchdog / 2
            self._manager.alive()
        if self._look_at is not None and self._look_at <= now:
            self._look_at = now + INTERVAL
            log_date_warnings(self._certificates())
