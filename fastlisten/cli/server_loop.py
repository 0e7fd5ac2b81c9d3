"""Runs a server on the program's event loop, and says how it has ended.

Rules of this file: the loop, messages, exit codes. It serves a `Server`, or a `WorkerServer` in a
worker's process; which of them it is makes no difference here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from fastlisten.cli.bounded_runner import BoundedRunner
from fastlisten.cli.check import CONFIGURATION_ERROR
from fastlisten.cli.logging_setup import ProgramHandler
from fastlisten.cli.program_signals import ProgramSignals
from fastlisten.cli.startup_messages import StartupMessages
from fastlisten.errors import ConfigurationError, FastlistenError, StartError
from fastlisten.garbage import collector_paused
from fastlisten.log_events import log, log_fault
from fastlisten.runtime.server import Server
from fastlisten.runtime.supervisor.worker_server import WorkerServer
from fastlisten.runtime.worker import StoppedError

__all__ = ["CANNOT_START", "FAILURE_WHILE_RUNNING", "Ended", "is_shortage", "run_server"]

logger = logging.getLogger("fastlisten")

FAILURE_WHILE_RUNNING = 1
CANNOT_START = 3

#: Errors that pass when others give back descriptors, memory or processes.
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))

#: Tasks that are named when the process ends in spite of them.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server has ended.

    Attributes:
        code: the exit code.
        left: there are tasks that ignore their cancellation. An end of Python's own would wait for
            them, or report each of them.
    """

    code: int
    left: bool


def run_server(
    server: Server | WorkerServer,
    messages: StartupMessages,
    handler: ProgramHandler,
    signals: ProgramSignals | None,
    left_out: Iterable[str] = (),
    *,
    shortage: int = CANNOT_START,
) -> Ended:
    """Serve until the end.

    Args:
        server: not started yet.
        messages: prints what is served, and why it cannot start.
        handler: of the log.
        signals: of this process, if it is the program.
        left_out: lines about listeners that are not served, to print after the others.
        shortage: the exit code if it cannot start because of what `is_shortage` names.
    """
    runner = BoundedRunner(functools.partial(_make_loop, signals))
    try:
        code = _run(server, messages, signals, left_out, runner, shortage)
    except StartError as error:
        handler.flush()
        for failure in error.failures:
            messages.failed(failure)
        code = CANNOT_START
    except ConfigurationError as error:
        handler.flush()
        messages.refused_all(error)
        code = CONFIGURATION_ERROR
    finally:
        if runner.left:
            _log_left(runner.left)
    return Ended(code or (FAILURE_WHILE_RUNNING if runner.left else 0), bool(runner.left))


def _run(
    server: Server | WorkerServer,
    messages: StartupMessages,
    signals: ProgramSignals | None,
    left_out: Iterable[str],
    runner: BoundedRunner,
    shortage: int,
) -> int:
    """Serve until the end; return the exit code."""

    async def serve() -> None:
        handled = server.signals() if signals is None else signals.serving(server)
        with handled, contextlib.suppress(StoppedError):
            with collector_paused():
                await server.startup()
            try:
                if signals is not None:
                    signals.started()
                with collector_paused():
                    for line, event, fields in server.announcements():
                        messages.say(line, event, **fields)
                    for line in left_out:
                        messages.say(line, "listener-note")
                await server.main_loop()
            finally:
                await server.shutdown()

    try:
        runner.run(serve)
    except (StartError, ConfigurationError):
        raise
    except FastlistenError as error:
        # The handler's message says what is missing; a traceback would add nothing.
        _log_end(server, error)
        return FAILURE_WHILE_RUNNING if server.started else CANNOT_START
    except Exception as error:
        if isinstance(error, OSError) and not server.started:
            # No descriptors, memory or files; a traceback would add little.
            _log_end(server, error, trace=logger.isEnabledFor(logging.DEBUG))
            return shortage if is_shortage(error) else CANNOT_START
        _log_end(server, error, trace=True)
        return FAILURE_WHILE_RUNNING if server.started else CANNOT_START
    return 0


def is_shortage(error: BaseException) -> bool:
    """Tell whether descriptors, memory or processes have run out, so that it may work later."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def _make_loop(signals: ProgramSignals | None) -> asyncio.AbstractEventLoop:
    from fastlisten.loop.event_loop import new_event_loop

    loop = new_event_loop()
    if signals is not None:
        signals.hold()
    return loop


def _log_left(places: list[str]) -> None:
    """Log the tasks that have ignored their cancellation."""
    count = len(places)
    tasks = "1 task ignores" if count == 1 else f"{count} tasks ignore"
    shown = ", ".join(places[:_SHOWN]) + (", ..." if count > _SHOWN else "")
    text = "ending although %s cancellation: %s"
    log(logger, logging.ERROR, "tasks-left", text, tasks, shown, count=count, error=shown)


def _log_end(server: Server | WorkerServer, error: Exception, *, trace: bool = False) -> None:
    """Log the exception that ends the server."""
    event, text = "start-failed", "cannot start: %s"
    if server.started:
        event, text = "server-failed", "failed: %s"
    if trace:
        log_fault(logger, event, text, error, error=str(error))
    else:
        log(logger, logging.ERROR, event, text, error, error=str(error))
