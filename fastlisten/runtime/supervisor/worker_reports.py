"""What the supervisor knows of its workers' reports: kept, merged, and kept when a worker ends.

Rules of this file: no I/O and no clock. What workers send is checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Counters, ListenerReport
from fastlisten.runtime.supervisor.channel import BadMessageError
from fastlisten.runtime.supervisor.control_messages import (
    decode_ended,
    decode_reports,
    encode_counters,
)
from fastlisten.runtime.supervisor.worker_requests import Body

__all__ = ["EndedWorkers", "KnownWorker", "merged"]

#: If a listener's states differ between workers, the first of these that one of them has.
_ORDER = (
    State.DRAINING,
    State.PAUSED,
    State.LISTENING,
    State.FULL,
    State.TOTAL_FULL,
    State.BOUND,
    State.CLOSED,
)


@dataclass(slots=True)
class KnownWorker:
    """A running worker.

    Attributes:
        number: within the server; a worker that drains and the one that replaces it share it.
        serving: it accepts; false once it drains.
        reports: its last reports, by listener.
        reported: when the last of them arrived.
        late: when it was asked for a report that it has not sent; None if it answers.
        missed: it has not received a change.
        requests: how many of its own requests are not answered yet.
    """

    number: int
    serving: bool = True
    reports: dict[str, ListenerReport] = field(default_factory=dict)
    reported: float = 0.0
    late: float | None = None
    missed: bool = False
    requests: int = 0

    def keep(self, body: Body, now: float) -> None:
        """Keep the reports in an answer, if it has any, also in one that comes late.

        Raises:
            BadMessageError: they are not reports on this worker.
        """
        result = body.get("result")
        if not isinstance(result, dict) or "reports" not in result:
            return
        found = decode_reports(result["reports"])
        if any(report.workers.keys() != {self.number} for report in found):
            raise BadMessageError("a report on another worker")
        if result.get("all") is True:
            self.reports.clear()
        self.reports.update((report.id, report) for report in found)
        self.reported = now
        self.late = None


class EndedWorkers:
    """What workers that have ended had counted, by number and listener."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[int, Counters]] = {}

    def add(self, worker: KnownWorker, ids: Collection[str]) -> None:
        """Add the counters of a worker that has ended, as it reported them last.

        Args:
            worker: that has ended.
            ids: of the listeners that there are; it may have reported on others.
        """
        for id, report in worker.reports.items():
            if id not in ids:
                continue
            counters = dataclasses.replace(report.total, connections=0)
            of_listener = self._counters.setdefault(id, {})
            if before := of_listener.get(worker.number):
                counters = Counters.sum((before, counters))
            of_listener[worker.number] = counters

    def forget(self, ids: Iterable[str]) -> None:
        """Forget listeners that there are no longer."""
        for id in ids:
            self._counters.pop(id, None)

    def encode(self) -> dict[str, Any]:
        """Return them as a JSON value."""
        return {
            id: {str(number): encode_counters(one) for number, one in of_listener.items()}
            for id, of_listener in self._counters.items()
        }

    def decode(self, value: object) -> None:
        """Take them from a JSON value that `encode` has returned.

        Raises:
            BadMessageError: it has none.
        """
        self._counters = decode_ended(value)

    def counters(self, id: str) -> dict[int, Counters]:
        """Return the counters of a listener, by the worker's number."""
        return self._counters.get(id, {})


def merged(
    workers: Iterable[KnownWorker], ended: EndedWorkers, ids: Iterable[str]
) -> list[ListenerReport]:
    """Return one report for each listener on which a running worker has reported.

    Args:
        workers: the running ones.
        ended: those that have ended.
        ids: of the listeners.
    """
    workers = tuple(workers)
    stale = tuple(sorted({one.number for one in workers if one.late is not None}))
    found = []
    for id in ids:
        known = [one for one in workers if id in one.reports]
        if not known:
            continue
        parts = {number: [counters] for number, counters in ended.counters(id).items()}
        for one in known:
            parts.setdefault(one.number, []).append(one.reports[id].total)
        # Old states say nothing, as long as there are others.
        current = [one for one in known if one.serving and one.late is None] or known
        states = {one.reports[id].state for one in current}
        latest = max(current, key=lambda one: one.reported).reports[id]
        found.append(
            dataclasses.replace(
                latest,
                state=min(states, key=_ORDER.index),
                accepting=all(one.reports[id].accepting for one in current),
                workers={number: Counters.sum(parts[number]) for number in sorted(parts)},
                stale=stale,
            )
        )
    return found
