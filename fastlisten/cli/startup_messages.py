"""What `serve` prints besides its log: problems at the start, and the listeners.

Rules of this file: `log.format` decides on the form. Text is the same as in other commands; JSON is
like the records of the log, so that programs need to read only one format. Before the configuration
has been read, the form is text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, TextIO

from fastlisten.cli.journal import at_level
from fastlisten.cli.logging_setup import JsonFormatter
from fastlisten.errors import ConfigurationError, Problem, SocketFailure
from fastlisten.log_events import event_record

__all__ = ["StartupMessages"]


class StartupMessages:
    """Writes to the two streams.

    Args:
        form: as `log.format`.
        out: receives the list of listeners.
        err: receives problems.
    """

    def __init__(self, form: Literal["text", "json"], out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._json = JsonFormatter() if form == "json" else None

    def say(self, text: str, event: str, **fields: object) -> None:
        """Print something that is not a problem."""
        self._write(self._out, logging.INFO, "", text, event, fields)

    def warnings(self, problems: Iterable[Problem]) -> None:
        """Print warnings about the configuration."""
        event = "configuration-warning"
        for one in problems:
            self._write(self._err, logging.WARNING, "warning: ", str(one), event, one.fields)

    def refused(self, problem: Problem) -> None:
        """Print a mistake in the configuration."""
        fields = problem.fields
        self._write(
            self._err, logging.ERROR, "error: ", str(problem), "configuration-error", fields
        )

    def refused_all(self, error: ConfigurationError, warnings: Iterable[Problem] = ()) -> None:
        """Print all mistakes, after the warnings about keys that have no mistake."""
        refused = {problem.key for problem in error.problems}
        self.warnings(problem for problem in warnings if problem.key not in refused)
        for problem in error.problems:
            self.refused(problem)

    def failed(self, failure: SocketFailure | Exception) -> None:
        """Print why the server cannot start."""
        fields: dict[str, object] = {"error": str(failure)}
        if isinstance(failure, SocketFailure):
            fields = {
                "listener": failure.listener,
                "address": failure.address,
                "operation": failure.operation,
                "error": failure.text,
            }
        self._write(self._err, logging.ERROR, "error: ", str(failure), "start-failed", fields)

    def _write(
        self,
        stream: TextIO,
        level: int,
        prefix: str,
        text: str,
        event: str,
        fields: dict[str, object],
    ) -> None:
        line = f"{prefix}{text}"
        if self._json is not None:
            line = self._json.format(event_record("fastlisten", level, event, text, (), fields))
        print(at_level(line, level, stream), file=stream, flush=True)
