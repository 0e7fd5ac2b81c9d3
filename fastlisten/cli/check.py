"""`fastlisten check [FILE]`: report all mistakes of a configuration.

Rules of this file: it reads, certificates, CAs and accounts too, and prints; nothing is bound or
changed.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.config import Config, default_config, load
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError, Problem

__all__ = ["open_config", "read_config", "run"]

#: Exit code for a configuration that cannot be used.
CONFIGURATION_ERROR = 2


def open_config(file: str | None, err: TextIO) -> Config | None:
    """Return a configuration, or None after all its mistakes have been printed.

    Args:
        file: its path; None for the embedded default.
        err: receives mistakes and warnings.
    """
    config = read_config(file, err)
    if config is not None:
        _print("warning", config.warnings, err)
    return config


def read_config(file: str | None, err: TextIO) -> Config | None:
    """Return a configuration as `open_config` does, and leave its warnings to the caller."""
    try:
        return default_config() if file is None else load(file)
    except ConfigurationError as error:
        _print("warning", error.warnings, err)
        _refused(error, err)
        return None


def run(file: str | None, out: TextIO, err: TextIO) -> int:
    """Check a configuration.

    Args:
        file: its path; None for the embedded default.
        out: receives the verdict.
        err: receives mistakes and warnings, and what this version does not have yet.

    Returns:
        0 if it has no mistakes, 2 if it has. A correct file that asks for something this version
        does not have is 0 as well: the verdict says that `serve` refuses it.
    """
    config = open_config(file, err)
    if config is None:
        return CONFIGURATION_ERROR
    unavailable = find_unavailable(config)
    # Of the embedded default, serve leaves out what it cannot carry out.
    effect = "`serve` refuses this file" if file else "`serve` leaves this listener out"
    for problem in unavailable:
        print(f"note: {problem}; {effect}", file=err)
    from fastlisten.runtime.file_checks import check_files
    from fastlisten.runtime.file_permissions import permission_warnings
    from fastlisten.runtime.tls.certificates import Certificates

    problems, notes = check_files(config)
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
    if unavailable:
        count = len(unavailable)
        what = f"{'setting' if count == 1 else 'settings'} that `serve` refuses"
        verdict += f", {count:,} {what if file else 'that `serve` leaves out'}"
    print(f"{name}: {verdict}", file=out)
    return 0


def _refused(error: ConfigurationError, err: TextIO) -> int:
    _print("error", error.problems, err)
    count = len(error.problems)
    print(f"{count:,} {'error' if count == 1 else 'errors'}", file=err)
    return CONFIGURATION_ERROR


def _print(severity: str, problems: tuple[Problem, ...], err: TextIO) -> None:
    for problem in problems:
        print(f"{severity}: {problem}", file=err)
