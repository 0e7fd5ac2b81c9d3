"""`fastlisten serve [FILE]`: the program.

Rules of this file: configuration, logging, the loop, exit codes; `runtime.server` does the serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import io
import logging
import os
from collections.abc import Iterable
from typing import TextIO

from fastlisten import private_files
from fastlisten.cli import account
from fastlisten.cli.bounded_runner import BoundedRunner
from fastlisten.cli.check import CONFIGURATION_ERROR, read_config
from fastlisten.cli.logging_setup import set_up_logging
from fastlisten.cli.program_signals import ProgramSignals
from fastlisten.cli.startup_messages import StartupMessages
from fastlisten.config import Config, ListenerSettings, default_config
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError, FastlistenError, StartError
from fastlisten.garbage import collector_paused
from fastlisten.log_events import log, log_fault
from fastlisten.mail.accounts import passwords
from fastlisten.runtime.control_socket.socket_file import default_path
from fastlisten.runtime.descriptor_limit import raise_descriptor_limit
from fastlisten.runtime.handler_factory import make_handler
from fastlisten.runtime.privileges import PrivilegesError
from fastlisten.runtime.server import Server
from fastlisten.runtime.tls.self_signed import MissingLibraryError, check_possible
from fastlisten.runtime.worker import StoppedError

__all__ = ["run"]

logger = logging.getLogger("fastlisten")

FAILURE_WHILE_RUNNING = 1
CANNOT_START = 3

#: Tasks that are named when the process ends in spite of them.
_SHOWN = 3

#: The account of the embedded default, created if there is no accounts file.
DEFAULT_ACCOUNT = "user@localhost"


def run(file: str | None, out: TextIO, err: TextIO, signals: ProgramSignals | None = None) -> int:
    """Serve a configuration until SIGTERM or SIGINT.

    Args:
        file: its path; None for the embedded default.
        out: receives the list of listeners.
        err: receives errors, warnings and the log.
        signals: the signals of this process if it is the program; None to use `Server.signals`.

    Returns:
        0 drained, 1 failed while running, 2 configuration, 3 cannot start.
    """
    if file is None and "INVOCATION_ID" in os.environ and "NOTIFY_SOCKET" in os.environ:
        print("error: under systemd a configuration file must be given", file=err)
        return CONFIGURATION_ERROR
    left_out: list[str] = []
    if file is None:
        config, left_out = _what_can_be_served(default_config())
    else:
        found = read_config(file, err)
        if found is None:
            return CONFIGURATION_ERROR
        config = found
    messages = StartupMessages(config.process["log.format"], out, err)
    warnings = config.warnings if file is not None else ()
    try:
        if file is None:
            _make_default_account(config, out)
        with collector_paused():
            server = Server(config, control_socket=default_path(config))
        warning = raise_descriptor_limit(config)
    except (OSError, PrivilegesError) as error:
        messages.warnings(warnings)
        messages.failed(error)
        return CANNOT_START
    except ConfigurationError as error:
        # No warning about a key for which there is an error.
        refused = {problem.key for problem in error.problems}
        messages.warnings(problem for problem in warnings if problem.key not in refused)
        for problem in error.problems:
            messages.refused(problem)
        return CONFIGURATION_ERROR
    messages.warnings(warnings)
    handler = set_up_logging(config.process["log.level"], config.process["log.format"], err)
    runner = BoundedRunner(functools.partial(_make_loop, signals))
    try:
        if warning:
            log(logger, logging.WARNING, "configuration-warning", "%s", warning, error=warning)
        code = _run_loop(server, messages, signals, left_out, runner)
    except StartError as error:
        handler.flush()
        for failure in error.failures:
            messages.failed(failure)
        code = CANNOT_START
    except ConfigurationError as error:
        handler.flush()
        for problem in error.problems:
            messages.refused(problem)
        code = CONFIGURATION_ERROR
    finally:
        if runner.left:
            _log_left(runner.left)
        handler.close()
    if runner.left:
        code = code or FAILURE_WHILE_RUNNING
        if signals is not None:
            # An end of Python's own would wait for these tasks, or report each of them.
            out.flush()
            os._exit(code)
    return code


def _run_loop(
    server: Server,
    messages: StartupMessages,
    signals: ProgramSignals | None,
    left_out: Iterable[str],
    runner: BoundedRunner,
) -> int:
    """Serve until the end; return the exit code.

    Args:
        server: not started yet.
        messages: prints what is served.
        signals: of this process, if it is the program.
        left_out: lines about listeners that are not served, to print after the others.
        runner: makes the loop and runs it.
    """

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
            return CANNOT_START
        _log_end(server, error, trace=True)
        return FAILURE_WHILE_RUNNING if server.started else CANNOT_START
    return 0


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


def _log_end(server: Server, error: Exception, *, trace: bool = False) -> None:
    """Log the exception that ends the server."""
    event, text = "start-failed", "cannot start: %s"
    if server.started:
        event, text = "server-failed", "failed: %s"
    if trace:
        log_fault(logger, event, text, error, error=str(error))
    else:
        log(logger, logging.ERROR, event, text, error, error=str(error))


def _what_can_be_served(config: Config) -> tuple[Config, list[str]]:
    """Leave out the listeners of the embedded default that this installation cannot serve.

    Returns:
        The configuration without them, and lines that say which are not served, and why.
    """
    able = []
    absent = []
    lines = []
    for listener in config.listeners:
        missing = find_unavailable(dataclasses.replace(config, listeners=(listener,)))
        why = ""
        if missing:
            absent.append(listener.id)
            continue
        if listener["tls.implicit"]:
            try:
                check_possible(config.process["server.data-directory"])
            except MissingLibraryError as error:
                why = str(error)
        why = why or _why_not_made(config, listener)
        if why:
            lines.append(f'listener "{listener.id}": not served: {why}')
        else:
            able.append(listener)
    if absent:
        lines.append(f"not served, because not available in this version: {', '.join(absent)}")
    return dataclasses.replace(config, listeners=tuple(able)), lines


def _why_not_made(config: Config, listener: ListenerSettings) -> str:
    """Return why a listener's handler cannot be made (a missing library), or an empty text."""
    try:
        make_handler(config, listener)
    except ConfigurationError as error:
        return "; ".join(problem.message for problem in error.problems)
    return ""


def _make_default_account(config: Config, out: TextIO) -> None:
    """Create the embedded default's one account if there is no accounts file yet."""
    directory = config.process["server.data-directory"]
    file = config.process["server.accounts"] or os.path.join(directory, "accounts.toml")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if not os.path.exists(file):
        password = passwords.generate() if passwords.available() else ""
        kept = os.path.join(directory, f"{DEFAULT_ACCOUNT}.password")
        if password:
            # Written before the account, so that there is never an account whose password is lost.
            private_files.replace(kept, f"{password}\n".encode())
        problem = io.StringIO()
        if account.add(DEFAULT_ACCOUNT, file, out, problem, password=password):
            raise OSError(problem.getvalue().strip())
        if not password:
            print(f"nobody can log in to it: {passwords.NEEDED}", file=out)
        elif out.isatty():
            print(f"its password is {password}, kept in {kept}", file=out)
        else:
            print(f"its password is in {kept}", file=out)
    print(f"mail is kept in {directory}; accounts in {file}", file=out)
