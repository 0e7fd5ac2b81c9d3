"""The lines of the log about a reload, the same for one process and for several workers.

Rules of this file: it logs what others have decided and done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from fastlisten.errors import ConfigurationError, StartError
from fastlisten.log_events import log, log_fault
from fastlisten.runtime.plan import Plan, log_certificates
from fastlisten.runtime.reload.difference import Difference
from fastlisten.runtime.reload.report import ReloadReport

__all__ = ["failed", "log_changes", "log_failure", "log_report"]

logger = logging.getLogger("fastlisten")

#: A line about a listener: text, event, fields.
Line = tuple[str, str, dict[str, object]]


def log_failure(error: Exception, file: str) -> ReloadReport:
    """Log why a reload failed, a line for each problem; return the report.

    Args:
        error: what was raised before anything had changed.
        file: of the configuration.
    """
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            log(logger, logging.ERROR, "configuration-error", "%s", problem, **problem.fields)
        return failed(file, *error.problems)
    if isinstance(error, StartError):
        for failure in error.failures:
            fields: dict[str, object] = {
                "listener": failure.listener,
                "address": failure.address,
                "operation": failure.operation,
                "error": failure.text,
            }
            log(logger, logging.ERROR, "start-failed", "%s", failure, **fields)
        return failed(file, *error.failures)
    what = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    log_fault(logger, "reload-failed", "reload failed: %s", what, file=file, error=what)
    return failed(file, what)


def failed(file: str, *problems: object) -> ReloadReport:
    """Return the report on a reload that has changed nothing."""
    return ReloadReport(applied=False, file=file, problems=tuple(map(str, problems)))


def log_report(report: ReloadReport) -> None:
    """Log a report in one line."""
    level = logging.INFO if report.succeeded else logging.ERROR
    if not report.applied:
        why = report.problems[0]
        log(logger, level, "reload-failed", "%s", report.summary, file=report.file, error=why)
        return
    fields: dict[str, object] = {
        "file": report.file,
        "added": len(report.added),
        "removed": len(report.removed),
        "changed": len(report.changed),
        "restart": len(report.restart),
    }
    log(logger, level, "configuration-reloaded", "%s", report.summary, **fields)


def log_changes(plan: Plan, found: Difference, report: ReloadReport, lines: Iterable[Line]) -> None:
    """Log what has changed, a line each.

    Args:
        plan: the new one.
        found: the difference to the former one.
        report: on the reload.
        lines: about the new listeners.
    """
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
    for line, event, values in lines:
        log(logger, logging.INFO, event, "%s", line, **values)
