"""`fastlisten check [FILE]`: report every mistake in a configuration.

Rules of this file: it reads the configuration and the certificates, CAs and accounts that it names.
Nothing is bound or changed.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TextIO

from fastlisten.cli.journal import at_level
from fastlisten.config import Config, default_config, load
from fastlisten.config.listener_reader import SERVE_FAILS
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError, Problem

__all__ = ["open_config", "read_config", "run"]

#: Exit code for a configuration that cannot be used.
CONFIGURATION_ERROR = 2


def open_config(file: str | None, err: TextIO) -> Config | None:
    """Load a configuration; print its warnings, or its mistakes and return None.

    Args:
        file: its path; None for the embedded default.
        err: receives mistakes and warnings.
    """
    config = read_config(file, err)
    if config is not None:
        _print(logging.WARNING, config.warnings, err)
    return config


def read_config(file: str | None, err: TextIO) -> Config | None:
    """Load a configuration as `open_config` does, but don't print warnings if it is usable."""
    try:
        return default_config() if file is None else load(file)
    except ConfigurationError as error:
        _print(logging.WARNING, error.warnings, err)
        _refused(error, err)
        return None


def run(file: str | None, out: TextIO, err: TextIO) -> int:
    """Check a configuration.

    Args:
        file: its path; None for the embedded default.
        out: receives the result.
        err: receives mistakes, warnings and what is not available in this version.

    Returns:
        0 if there are no mistakes, else 2. It is also 0 for a correct file with settings that are
        not available in this version, or with handlers that cannot be imported; the output then
        says that `serve` refuses them.
    """
    config = open_config(file, err)
    if config is None:
        return CONFIGURATION_ERROR
    unavailable = find_unavailable(config)
    # From the embedded default, `serve` leaves out the listeners that it cannot serve.
    effect = "`serve` refuses this file" if file else "`serve` leaves this listener out"
    for problem in unavailable:
        print(f"note: {problem}; {effect}", file=err)
    from fastlisten.privileges import PrivilegesError
    from fastlisten.runtime.file_checks import check_files
    from fastlisten.runtime.file_permissions import permission_warnings
    from fastlisten.runtime.privileges import identity_of
    from fastlisten.runtime.tls.certificates import Certificates

    problems, notes = check_files(config)
    try:
        # Whether this process could change to it does not matter here.
        with contextlib.suppress(PrivilegesError):
            identity_of(config)
    except ConfigurationError as error:
        problems += error.problems
    try:
        notes += Certificates(config, trial=True).notes
    except ConfigurationError as error:
        problems += error.problems
    if problems:
        problems.sort(key=lambda problem: problem.line)
        return _refused(ConfigurationError(problems), err)
    for note in (*notes, *permission_warnings(config)):
        print(f"warning: {note}", file=err)
    count = len(config.listeners)
    name = file or "the embedded default"
    verdict = f"{count:,} {'listener' if count == 1 else 'listeners'}, no errors"
    refused = [each for each in config.warnings if each.message.endswith(SERVE_FAILS)]
    if count := len(unavailable) + len(refused):
        what = f"{'setting' if count == 1 else 'settings'} that `serve` refuses"
        verdict += f", {count:,} {what if file else 'left out by `serve`'}"
    print(f"{name}: {verdict}", file=out)
    return 0


def _refused(error: ConfigurationError, err: TextIO) -> int:
    _print(logging.ERROR, error.problems, err)
    count = len(error.problems)
    total = f"{count:,} {'error' if count == 1 else 'errors'}"
    print(at_level(total, logging.ERROR, err), file=err)
    return CONFIGURATION_ERROR


def _print(level: int, problems: tuple[Problem, ...], err: TextIO) -> None:
    severity = logging.getLevelName(level).lower()
    for problem in problems:
        print(at_level(f"{severity}: {problem}", level, err), file=err)
