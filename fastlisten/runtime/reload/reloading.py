"""Reloads a server with one worker in this process: by difference, and all or nothing.

    load, check, compare, read certificates      in a thread; the loop goes on
    open sockets, set options of those that stay  can be undone
    make and start handlers                       may take a while; can be undone
    commit                                        at once, between two events of the loop

Rules of this file: the order of the steps and how each is undone. Whatever fails before `commit` is
reported and changes nothing. (A renewed certificate that is broken does not stop a reload; the one
that was loaded before stays in use.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastlisten._arena import Arena
from fastlisten.config import Config
from fastlisten.runtime.listening_lines import listening_lines
from fastlisten.runtime.reload.next_plan import next_plan
from fastlisten.runtime.reload.reload_log import log_changes, log_failure, log_report
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.reload.transition import Transition
from fastlisten.runtime.sockets.reopening import reopen
from fastlisten.runtime.worker import StoppedError, Worker

__all__ = ["reload_worker"]


async def reload_worker(
    worker: Worker, arena: Arena, config: Config | None, applied: Callable[[Config], object]
) -> ReloadReport:
    """Reload, and log what was done.

    Args:
        worker: accepts.
        arena: counts its connections.
        config: the new configuration; None: the file of the present one is read again.
        applied: called with the configuration in use, before anything is logged about it.

    Raises:
        StoppedError: the worker was asked to stop.
    """
    file = worker.plan.config.file if config is None else config.file
    try:
        report = await _reload(worker, arena, config, applied)
    except (StoppedError, asyncio.CancelledError):
        raise
    except Exception as error:
        report = log_failure(error, file)
    worker.plan.reload_succeeded = report.succeeded
    log_report(report)
    return report


async def _reload(
    worker: Worker, arena: Arena, config: Config | None, applied: Callable[[Config], object]
) -> ReloadReport:
    former = worker.plan
    plan, found, warnings = await asyncio.to_thread(next_plan, former, config)
    if worker.stopping:
        raise StoppedError("stopped while reloading")
    here = [
        (settings, listener.sockets)
        for (settings, _), listener in zip(worker.handlers, worker.listeners, strict=True)
        if not worker.is_drained(settings.id)
    ]
    wanted = [one for one in plan.config.listeners if not worker.is_drained(one.id)]
    transition = Transition(worker, plan, found)
    plan.add_rows(former, arena)
    try:
        sockets = reopen(here, wanted, plan.notes, plan.owner)
        try:
            await transition.prepare(sockets.sockets)
        except BaseException:
            sockets.undo()
            raise
    except BaseException:
        plan.drop_rows(former, arena)
        raise
    sockets.commit()
    transition.commit()
    plan.commit(former, arena)
    applied(plan.config)
    worker.log_connections()
    report = ReloadReport.of(
        plan.config.file,
        found,
        plan.certificates.found,
        [*warnings, *plan.news],
        worker.code.changed(plan.config.listeners),
    )
    worker.code.remember(plan.config.listeners)
    log_changes(plan, found, report, listening_lines(worker, set(found.added)))
    return report
