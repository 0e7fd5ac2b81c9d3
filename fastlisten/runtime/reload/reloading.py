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
import logging
import os
import stat
from collections.abc import Callable

from fastlisten._arena import Arena
from fastlisten.config import Config, load
from fastlisten.errors import ConfigurationError, Problem, StartError
from fastlisten.log_events import log, log_fault
from fastlisten.runtime.listening_lines import listening_lines
from fastlisten.runtime.plan import Plan, log_certificates
from fastlisten.runtime.reload.difference import Difference, difference
from fastlisten.runtime.reload.report import ReloadReport
from fastlisten.runtime.reload.transition import Transition
from fastlisten.runtime.sockets.reopening import reopen
from fastlisten.runtime.worker import StoppedError, Worker

__all__ = ["reload_worker"]

logger = logging.getLogger("fastlisten")


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
    except ConfigurationError as error:
        for problem in error.problems:
            log(logger, logging.ERROR, "configuration-error", "%s", problem, **problem.fields)
        report = _failed(file, error.problems)
    except StartError as error:
        for failure in error.failures:
            fields: dict[str, object] = {
                "listener": failure.listener,
                "address": failure.address,
                "operation": failure.operation,
                "error": failure.text,
            }
            log(logger, logging.ERROR, "start-failed", "%s", failure, **fields)
        report = _failed(file, error.failures)
    except (StoppedError, asyncio.CancelledError):
        raise
    except Exception as error:
        what = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        log_fault(logger, "reload-failed", "reload failed: %s", what, file=file, error=what)
        report = _failed(file, (what,))
    worker.plan.reload_succeeded = report.succeeded
    level = logging.INFO if report.succeeded else logging.ERROR
    fields = {
        "file": report.file,
        "added": len(report.added),
        "removed": len(report.removed),
        "changed": len(report.changed),
        "restart": len(report.restart),
    }
    if report.applied:
        log(logger, level, "configuration-reloaded", "%s", report.summary, **fields)
    else:
        error_text = report.problems[0]
        log(logger, level, "reload-failed", "%s", report.summary, file=file, error=error_text)
    return report


def _failed(file: str, problems: tuple[object, ...]) -> ReloadReport:
    return ReloadReport(applied=False, file=file, problems=tuple(map(str, problems)))


async def _reload(
    worker: Worker, arena: Arena, config: Config | None, applied: Callable[[Config], object]
) -> ReloadReport:
    former = worker.plan
    plan, found, warnings = await asyncio.to_thread(_plan, former, config)
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
    _log(worker, plan, found, report)
    return report


def _plan(former: Plan, config: Config | None) -> tuple[Plan, Difference, list[str]]:
    """Load and compare; return the next plan, the difference and new warnings. Blocks."""
    if config is None:
        config = _load(former.config)
    known = {(one.key, one.value, one.message) for one in former.config.warnings}
    warnings = [
        str(one) for one in config.warnings if (one.key, one.value, one.message) not in known
    ]
    found = difference(former.config, config)
    return Plan(found.config, former), found, warnings


def _load(config: Config) -> Config:
    """Read the file of a configuration again; without a file it stays as it is."""
    if not config.file:
        return config
    try:
        regular = stat.S_ISREG(os.stat(config.file).st_mode)
    except OSError:
        regular = True  # to be reported by whoever reads it
    if not regular:
        text = "only a file can be read again; what is not one needs a restart"
        raise ConfigurationError([Problem(text, file=config.file)])
    return load(config.file)


def _log(worker: Worker, plan: Plan, found: Difference, report: ReloadReport) -> None:
    """Log what has changed, a line each."""
    log_certificates(plan.certificates.found)
    for line in report.warnings[len(plan.certificates.found.warnings) :]:
        log(logger, logging.WARNING, "configuration-warning", "%s", line, error=line)
    for id in found.removed:
        text = 'listener "%s": removed from the configuration; draining'
        log(logger, logging.INFO, "listener-removed", text, id, listener=id)
    for change in found.changes:
        restart = change.effect == "restart"
        level = logging.WARNING if restart else logging.INFO
        event = "restart-needed" if restart else "setting-changed"
        fields: dict[str, object] = {
            "key": change.key,
            "value": change.after,
            "listener": ", ".join(change.listeners),
        }
        log(logger, level, event, "%s", change.text, **fields)
    for line in report.new_code:
        log(logger, logging.WARNING, "restart-needed", "%s", line)
    new = set(found.added)
    for line, event, fields in listening_lines(worker, new):
        log(logger, logging.INFO, event, "%s", line, **fields)
