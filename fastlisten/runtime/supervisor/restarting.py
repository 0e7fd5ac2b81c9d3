"""A restart: all workers are replaced, one after the other, and clients notice nothing.

    begin ──> successor of worker 0 serves, the old one drains ──> worker 1 ... ──> all: succeeded
                 └── it cannot start, or the server stops ──> the rest stays: failed

Rules of this file: the order. `Workers` starts processes and lets the old ones drain.
"""

from __future__ import annotations

from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.slot import Slot
from fastlisten.runtime.supervisor.workers import Workers

__all__ = ["Restarting"]


class Restarting:
    """Restarts, one at a time.

    Args:
        workers: that are replaced.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._left: list[Slot] = []
        self._outcome: Pending[bool] | None = None

    @property
    def under_way(self) -> bool:
        """Whether workers are being replaced."""
        return self._outcome is not None

    def begin(self) -> Pending[bool]:
        """Let `go_on` replace all workers; one that could not start before is tried again.

        Returns:
            Whether all of them were replaced, once that is known; of the restart that is under way,
            if there is one.
        """
        if self._outcome is not None:
            return self._outcome
        outcome: Pending[bool] = Pending()
        if not self._workers.started or self._workers.ends:
            outcome.resolve(False)
            return outcome
        self._outcome = outcome
        self._workers.start_missing()
        self._left = list(self._workers.slots)
        return outcome

    def go_on(self) -> None:
        """Replace the next worker, if the last one is done."""
        workers = self._workers
        if self._outcome is None or any(slot.successor for slot in workers.slots):
            return
        while self._left and workers.has_room():
            slot = self._left.pop(0)
            if slot.process is not None:
                workers.try_to_spawn(slot)
                return
        if not self._left:
            self.end(succeeded=True)

    def end(self, *, succeeded: bool) -> None:
        """End a restart, if one is under way."""
        self._left.clear()
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome.resolve(succeeded)
