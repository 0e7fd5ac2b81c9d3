"""A reload of a server with several workers, as the supervisor carries it out.

    load, check, compare, read certificates         here: workers may not read the keys
    open sockets, set options of those that stay    here; can be undone
    all workers prepare: make and start handlers    can be abandoned
    make room under the total for new reserves      here: no worker has new listeners yet
    all workers commit                              one that does not is replaced
    raise limits, give free reserves back           here: no worker has former listeners any more

Rules of this file: the order of the steps and how each is undone. Whatever fails before the commit
is reported and changes nothing. Processes are the supervisor's business.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fastlisten._arena import Arena
from fastlisten.errors import FastlistenError
from fastlisten.log_events import log
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.next_plan import next_plan
from fastlisten.runtime.reload.reload_log import failed, log_changes, log_failure, log_report
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.reopening import Reopened, reopen
from fastlisten.runtime.supervisor.reload_messages import Preparation, messages
from fastlisten.runtime.supervisor.reload_phases import ReloadPhases
from fastlisten.runtime.tls.pem import recorded
from fastlisten.runtime.worker import StoppedError

__all__ = ["ReloadedServer", "reload_workers"]

logger = logging.getLogger("fastlisten")

#: Takes the new plan and its sockets.
Adopt = Callable[[Plan, list[BoundSocket]], None]

#: Replaces processes: all but those with the first keys (None: no others), and those with the
#: second ones, which are killed. Returns a sentence about each that is killed.
Replace = Callable[[Collection[int] | None, Collection[int]], list[str]]


class WorkerRefusedError(FastlistenError):
    """A worker cannot take the new configuration.

    Attributes:
        problems: why, a line each.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True, slots=True)
class ReloadedServer:
    """The server before the reload.

    Attributes:
        plan: in use.
        sockets: all of them.
        arena: of all workers.
        size: how many workers it has.
        workers: those that serve: their numbers, by key.
        drained: ids of the listeners that were drained on request; may change in the meantime.
    """

    plan: Plan
    sockets: Sequence[BoundSocket]
    arena: Arena
    size: int
    workers: Mapping[int, int]
    drained: Collection[str]


async def reload_workers(
    server: ReloadedServer, phases: ReloadPhases, adopt: Adopt, replace: Replace
) -> ReloadReport:
    """Reload, and log what was done.

    Args:
        server: as it is.
        phases: of this reload.
        adopt: called once all workers have the new plan.
        replace: called for workers that have not.
    """
    file = server.plan.config.file
    try:
        report = await _reload(server, phases, adopt, replace)
    except StoppedError:
        return failed(file, "the server is stopping")
    except WorkerRefusedError as refused:
        for problem in refused.problems:
            log(logger, logging.ERROR, "configuration-error", "%s", problem, error=problem)
        report = failed(file, *refused.problems)
    except Exception as error:
        report = log_failure(error, file)
    log_report(report)
    return report


async def _reload(
    server: ReloadedServer, phases: ReloadPhases, adopt: Adopt, replace: Replace
) -> ReloadReport:
    former, arena = server.plan, server.arena
    with recorded() as files:
        plan, found, warnings = next_plan(former, None)
    plan.add_rows(former, arena)
    try:
        sockets = _reopen(server, plan)
        try:
            rows = plan.row_numbers()
            preparation = Preparation.of(found, files, rows, sockets.sockets)
            outgoing = messages(phases.id, preparation, sockets, server.workers)
            if problems := await phases.prepare(outgoing):
                raise WorkerRefusedError(problems)
        except BaseException:
            if silent := phases.abandon():
                replace(None, silent)
            sockets.undo()
            raise
    except BaseException:
        plan.drop_rows(former, arena)
        raise
    plan.lower(former, arena)
    await phases.commit()
    sockets.commit()
    close_all(sockets.gone)
    adopt(plan, sockets.sockets)
    replaced = replace(phases.answers.keys(), phases.lost)
    plan.commit(former, arena)
    answers = list(phases.answers.values())
    code = sorted({name for answer in answers for name in answer.code})
    new = [*warnings, *plan.news]
    report = ReloadReport.of(plan.config.file, found, plan.certificates.found, new, code)
    log_changes(plan, found, report, answers[0].lines if answers else ())
    return dataclasses.replace(report, warnings=(*report.warnings, *replaced))


def _reopen(server: ReloadedServer, plan: Plan) -> Reopened:
    """Open the sockets of the next plan.

    Raises:
        StartError: with every failure; nothing has changed.
    """
    own: dict[str, list[BoundSocket]] = {}
    for bound in server.sockets:
        own.setdefault(bound.listener, []).append(bound)
    here = [(one, own.get(one.id, ())) for one in server.plan.config.listeners]
    wanted = [one for one in plan.config.listeners if one.id not in server.drained]
    return reopen(here, wanted, plan.notes, plan.owner, server.size)
