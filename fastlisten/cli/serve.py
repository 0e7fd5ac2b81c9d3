"""`fastlisten serve [FILE]`: the program.

Rules of this file: configuration, logging, exit codes at the start. server_loop.py runs the server,
serve_workers.py a supervisor with its workers.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
from typing import TextIO

from fastlisten import private_files
from fastlisten.cli import account
from fastlisten.cli.check import CONFIGURATION_ERROR, read_config
from fastlisten.cli.journal import at_level
from fastlisten.cli.logging_setup import set_level, set_up_logging
from fastlisten.cli.program_signals import ProgramSignals
from fastlisten.cli.server_loop import CANNOT_START, run_server
from fastlisten.cli.startup_messages import StartupMessages
from fastlisten.config import Config, ListenerSettings, default_config
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.garbage import collector_paused
from fastlisten.log_events import log
from fastlisten.mail.accounts import passwords
from fastlisten.privileges import PrivilegesError
from fastlisten.runtime.control_socket.socket_file import default_path
from fastlisten.runtime.descriptor_limit import raise_descriptor_limit
from fastlisten.runtime.handler_factory import make_handler
from fastlisten.runtime.server import Server
from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.tls.self_signed import MissingLibraryError, check_possible

__all__ = ["run"]

logger = logging.getLogger("fastlisten")

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
        text = "error: under systemd a configuration file must be given"
        print(at_level(text, logging.ERROR, err), file=err)
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
    if config.workers > 1:
        from fastlisten.cli.serve_workers import serve_workers

        return serve_workers(config, messages, out, err, signals)
    try:
        if file is None:
            _make_default_account(config, out)
        with collector_paused():
            server = Server(config, control_socket=default_path(config), manager=ServiceManager())
        warning = raise_descriptor_limit(config)
    except (OSError, PrivilegesError) as error:
        messages.warnings(warnings)
        messages.failed(error)
        return CANNOT_START
    except ConfigurationError as error:
        messages.refused_all(error, warnings)
        return CONFIGURATION_ERROR
    messages.warnings(warnings)
    handler = set_up_logging(config.process["log.level"], config.process["log.format"], err)
    server.reloaded = _reloaded
    try:
        if warning:
            log(logger, logging.WARNING, "configuration-warning", "%s", warning, error=warning)
        ended = run_server(server, messages, handler, signals, left_out)
    finally:
        handler.close()
    if ended.left and signals is not None:
        out.flush()
        os._exit(ended.code)
    return ended.code


def _reloaded(config: Config) -> None:
    set_level(config.process["log.level"])


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
