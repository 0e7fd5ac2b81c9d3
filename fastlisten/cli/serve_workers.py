"""`fastlisten serve` with several workers: a supervisor in this process, a server in each worker.

Rules of this file: what differs from one process in configuration, logging, signals and exit codes;
`runtime.supervisor` does the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from fastlisten.cli.check import CONFIGURATION_ERROR
from fastlisten.cli.logging_setup import ProgramHandler, set_level, set_up_logging, set_worker
from fastlisten.cli.program_signals import ProgramSignals, Stopped
from fastlisten.cli.server_loop import (
    CANNOT_START,
    FAILURE_WHILE_RUNNING,
    is_shortage,
    run_server,
)
from fastlisten.cli.startup_messages import StartupMessages
from fastlisten.config import Config
from fastlisten.errors import ConfigurationError, StartError
from fastlisten.garbage import collector_paused
from fastlisten.log_events import log, log_fault
from fastlisten.privileges import PrivilegesError
from fastlisten.runtime.control_socket.socket_file import default_path
from fastlisten.runtime.descriptor_limit import raise_descriptor_limit
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.supervisor.control_messages import Line
from fastlisten.runtime.supervisor.shared_state import WorkerStart
from fastlisten.runtime.supervisor.supervisor import Supervisor
from fastlisten.runtime.supervisor.upgrade import UpgradeError, passed_state
from fastlisten.runtime.supervisor.worker_server import WorkerServer
from fastlisten.runtime.supervisor.workers import SHORTAGE

__all__ = ["serve_workers"]

logger = logging.getLogger("fastlisten")


def serve_workers(
    config: Config,
    messages: StartupMessages,
    out: TextIO,
    err: TextIO,
    signals: ProgramSignals | None,
) -> int:
    """Serve a configuration with several workers until SIGTERM or SIGINT.

    Args:
        config: with more than one worker.
        messages: for what is printed besides the log.
        out: the stream of the list of listeners.
        err: the stream of the log.
        signals: the signals of this process; None to handle them here.

    Returns:
        0 drained, 1 failed while running, 2 configuration, 3 cannot start.
    """
    program_command = own_command() if signals is not None else []
    signals = signals or ProgramSignals()
    try:
        state = passed_state()
        with collector_paused():
            plan = Plan(config)
        warning = raise_descriptor_limit(config)
    except (OSError, PrivilegesError, UpgradeError) as error:
        messages.warnings(config.warnings)
        messages.failed(error)
        return CANNOT_START
    except ConfigurationError as error:
        messages.refused_all(error, config.warnings)
        return CONFIGURATION_ERROR
    messages.warnings(config.warnings)
    handler = set_up_logging(config.process["log.level"], config.process["log.format"], err)
    program = _Program(messages, handler, out, signals)
    supervisor = Supervisor(
        plan,
        config.workers,
        program.be_worker,
        program.announce,
        default_path(config),
        manager=ServiceManager(),
        command=program_command,
        arguments=sys.argv[1:],
        rest=handler.rest,
    )
    supervisor.reloads.reloaded = _reloaded
    try:
        if warning:
            log(logger, logging.WARNING, "configuration-warning", "%s", warning, error=warning)
        # Loaded here, workers share it in memory.
        from fastlisten.loop import event_loop  # noqa: F401

        with signals.polled() as descriptor:
            gc.collect()
            gc.freeze()
            return supervisor.run(descriptor, state)
    except StartError as error:
        handler.flush()
        for failure in error.failures:
            messages.failed(failure)
        return CANNOT_START
    except Exception as error:
        if not supervisor.started:
            handler.flush()
            messages.failed(error)
            return CANNOT_START
        log_fault(logger, "server-failed", "failed: %s", error, error=str(error))
        return FAILURE_WHILE_RUNNING
    finally:
        gc.unfreeze()
        handler.close()


def own_command() -> list[str]:
    """Return how this program was run, without its arguments: by which Python, and which program.

    Both are what is at these paths when it is run again.
    """
    options = len(sys.orig_argv) - len(sys.argv) + 1
    return [sys.executable, *sys.orig_argv[1:options]]


class _Program:
    """What the supervisor and its workers take from the program.

    Args:
        messages: for what is printed besides the log.
        handler: of the log.
        out: the stream of the list of listeners.
        signals: of the supervisor.
    """

    def __init__(
        self,
        messages: StartupMessages,
        handler: ProgramHandler,
        out: TextIO,
        signals: ProgramSignals,
    ) -> None:
        self._messages = messages
        self._handler = handler
        self._out = out
        self._signals = signals

    def announce(self, lines: Sequence[Line]) -> None:
        """Print what is served."""
        for text, event, fields in lines:
            self._messages.say(text, event, **fields)

    def be_worker(self, start: WorkerStart) -> NoReturn:
        """Be a worker until its end, in a process that has just been forked."""
        signals = ProgramSignals(interrupts=False)
        signals.watch()
        code = CANNOT_START
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*signals.taken,))
            set_worker(self._handler, start.number)
            code = self._serve(start, signals)
        except Stopped:
            code = 0
        except SystemExit as end:  # from an application that is imported
            code = end.code if isinstance(end.code, int) else CANNOT_START
        except BaseException as error:
            logger.exception("worker %d cannot start", start.number)
            if is_shortage(error):
                code = SHORTAGE
        finally:
            signals.end(code)
            _end(code, self._handler.close)

    def _serve(self, start: WorkerStart, signals: ProgramSignals) -> int:
        try:
            if start.plan.identity is not None:
                start.plan.identity.drop()
            with collector_paused():
                server = WorkerServer(start)
            server.reloaded = _reloaded
        except PrivilegesError as error:
            self._messages.failed(error)
            return CANNOT_START
        except ConfigurationError as error:
            self._messages.refused_all(error)
            return CONFIGURATION_ERROR
        return run_server(server, self._messages, self._handler, signals, shortage=SHORTAGE).code


def _reloaded(config: Config) -> None:
    set_level(config.process["log.level"])


def _end(code: int, close: Callable[[], None]) -> NoReturn:
    """End a forked process as Python would, but without the supervisor's part of the stack."""
    try:
        close()
        # Applications may have registered something.
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
    finally:
        os._exit(code)
