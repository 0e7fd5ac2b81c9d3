"""Warns once a day about certificates that expire soon, while the server runs.

Rules of this file: it only logs. At the start and at a reload, certificates.py reports the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fastlisten.log_events import log
from fastlisten.runtime.tls.certificates import Certificates

__all__ = ["INTERVAL", "ExpiryCheck", "log_date_warnings"]

logger = logging.getLogger("fastlisten")

#: Seconds between two checks: a day. A machine that was suspended checks later.
INTERVAL = 86400.0


class ExpiryCheck:
    """Checks certificates on the running loop until `stop`.

    Args:
        certificates: returns those that are in use; a reload replaces them.
    """

    def __init__(self, certificates: Callable[[], Certificates]) -> None:
        self._certificates = certificates
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(INTERVAL, self._check)

    def stop(self) -> None:
        """Check no more."""
        self._timer.cancel()

    def _check(self) -> None:
        self._timer = self._loop.call_later(INTERVAL, self._check)
        log_date_warnings(self._certificates())


def log_date_warnings(certificates: Certificates) -> None:
    """Log a warning for each certificate that is not valid now, or not for much longer."""
    for line in certificates.date_warnings():
        log(logger, logging.WARNING, "certificate-warning", "%s", line, error=line)
