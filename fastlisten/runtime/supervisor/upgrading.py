"""An upgrade in the former program: requested, checked, and carried out when nothing is under way.

    request ──> check ──> answers that are missing, `CHANGE_SECONDS` at most ──> become
       │          │                            │                                   │
       └──────────┴── the server stops, or replaces workers ───────────────────────┴──> refused

Rules of this file: when to go on, and why not; no part of the supervisor's state. The check and the
exec are in upgrade.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastlisten.config import Config
from fastlisten.log_events import log
from fastlisten.runtime.control_socket.protocol import RequestError
from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.supervisor_control import CHANGE_SECONDS
from fastlisten.runtime.supervisor.upgrade import Check, UpgradeError, shape

__all__ = ["Upgrading"]

logger = logging.getLogger("fastlisten")


@dataclass(slots=True)
class _Upgrade:
    """An upgrade that was requested.

    Attributes:
        check: the new program, which checks whether it can take over.
        become_at: when to become the new program, if requests are still not answered by then; None
            before the check has ended.
        failed: fails with the `UpgradeError` if it comes to nothing.
    """

    check: Check
    become_at: float | None = None
    failed: Pending[None] = field(default_factory=Pending)


class Upgrading:
    """Upgrades, one at a time.

    Args:
        command: the program that is run, without its arguments; empty if it cannot be run.
        config: returns the configuration in use.
        require_quiet: raises an `UpgradeError` if something goes on that the new program could not
            continue.
        busy: tells whether answers of workers, or to workers, are missing.
        become: becomes the new program, or returns why that is not possible.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: Callable[[], Config],
        require_quiet: Callable[[], None],
        busy: Callable[[], bool],
        become: Callable[[], UpgradeError],
    ) -> None:
        self._command = command
        self._config = config
        self._require_quiet = require_quiet
        self._busy = busy
        self._become = become
        self._current: _Upgrade | None = None

    @property
    def under_way(self) -> bool:
        """Whether an upgrade was requested and has not come to nothing."""
        return self._current is not None

    async def request(self, by: str) -> None:
        """Become the program that is on disk now; the new one sends the client the answer.

        Raises:
            RequestError: nothing has changed.
        """
        log(logger, logging.INFO, "upgrade-requested", "upgrade requested by %s", by, by=by)
        try:
            if not self._command:
                raise UpgradeError("this server is part of another program, which cannot upgrade")
            if self._current is not None:
                raise UpgradeError("an upgrade is under way already")
            self._require_quiet()
            config = self._config()
            try:
                check = Check(self._command, str(config.file or ""), shape(config))
            except OSError as error:
                raise UpgradeError(f"the new program cannot be run: {error}") from None
            self._current = _Upgrade(check)
            await self._current.failed
        except UpgradeError as error:
            text = "not upgraded: %s"
            log(logger, logging.ERROR, "upgrade-failed", text, error, error=str(error))
            raise RequestError("not-upgraded", str(error)) from None

    @property
    def deadline(self) -> float | None:
        """When to call `act`, by the monotonic clock, if nothing else happens; None: not at all."""
        upgrade = self._current
        if upgrade is None:
            return None
        return upgrade.check.deadline if upgrade.become_at is None else upgrade.become_at

    def act(self) -> None:
        """Go on with an upgrade, if one is under way."""
        upgrade = self._current
        if upgrade is None:
            return
        try:
            self._require_quiet()
            now = time.monotonic()
            if upgrade.become_at is None:
                if not upgrade.check.ended():
                    return
                upgrade.become_at = now + CHANGE_SECONDS
            # Requests of clients and workers are answered here, if they are in time.
            if self._busy() and now < upgrade.become_at:
                return
            raise self._become()
        except UpgradeError as error:
            self._current = None
            upgrade.check.end()
            upgrade.failed.fail(error)

    def leave(self) -> None:
        """Close what belongs to an upgrade, in a forked process."""
        if self._current is not None:
            self._current.check.leave()

    def end(self) -> None:
        """End the check, if there is one; nobody is answered."""
        if self._current is not None:
            self._current.check.end()
