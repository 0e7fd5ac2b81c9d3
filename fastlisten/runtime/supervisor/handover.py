"""What the former program of an upgrade hands over to the new one, part by part.

Rules of this file: which parts there are. Each writes and reads its own state, as a JSON value, and
names the descriptors in it. What a part remembers and does not write is lost in an upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlisten.runtime.supervisor.control_access import ControlAccess
from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.reloads import Reloads
from fastlisten.runtime.supervisor.shared_logins import SharedLogins
from fastlisten.runtime.supervisor.shared_state import SharedState
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl
from fastlisten.runtime.supervisor.upgrade import UpgradeError, differences, shape
from fastlisten.runtime.supervisor.workers import Workers

__all__ = ["Handover"]


class Handover:
    """Writes the state of a supervisor, or reads that of the former program's."""

    def __init__(
        self,
        shared: SharedState,
        workers: Workers,
        logins: SharedLogins,
        control: SupervisorControl,
        reloads: Reloads,
        access: ControlAccess,
    ) -> None:
        self._shared = shared
        self._workers = workers
        self._logins = logins
        self._control = control
        self._reloads = reloads
        self._access = access

    def state(self) -> tuple[dict[str, Any], list[int]]:
        """Return what the new program needs, as a JSON value, and the descriptors in it."""
        access = self._access.state()
        state = {
            "shape": shape(self._shared.plan.config),
            "shared": self._shared.state(),
            "workers": self._workers.state(),
            "logins": self._logins.state(),
            "control": self._control.state(),
            "reloads": self._reloads.state(),
            "access": access,
        }
        descriptors = [
            *self._shared.descriptors(),
            *self._workers.descriptors(),
            *self._access.descriptors(access),
        ]
        return state, descriptors

    def take_over(self, state: Mapping[str, Any]) -> Pending[bytes]:
        """Go on from what `state` has returned in the former program.

        Returns:
            The answer to the client that has requested the upgrade, to be resolved.

        Raises:
            UpgradeError: that is not possible.
            OSError: a descriptor is something else.
        """
        if problems := differences(state["shape"], shape(self._shared.plan.config)):
            raise UpgradeError("; ".join(problems))
        self._shared.take_over(state["shared"])
        self._workers.take_over(state["workers"])
        self._logins.take_over(state["logins"])
        self._control.take_over(state["control"])
        self._reloads.take_over(state["reloads"])
        answer: Pending[bytes] = Pending()
        self._access.take_over(state["access"], answer)
        return answer
