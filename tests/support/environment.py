"""The environments in which tests run our program and others."""

from __future__ import annotations

import os
from pathlib import Path

import fastlisten

__all__ = ["clean_environment", "importing_environment", "own_environment"]

#: What systemd sets for a service.
SERVICE_VARIABLES = frozenset(
    {
        *("INVOCATION_ID", "NOTIFY_SOCKET", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"),
        *("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
        "JOURNAL_STREAM",
    }
)

#: The directory of the package under test, and that of `support`.
_PACKAGE = Path(fastlisten.__file__).parent.parent
_TESTS = Path(__file__).parents[1]


def clean_environment(**changes: str) -> dict[str, str]:
    """Return an environment that finds this package and the tests' handlers."""
    environ = {key: value for key, value in os.environ.items() if key not in SERVICE_VARIABLES}
    environ["PYTHONPATH"] = os.pathsep.join(map(str, (_PACKAGE, _TESTS)))
    return environ | changes


def importing_environment() -> dict[str, str]:
    """Return the environment of a program that imports the same fastlisten as the tests.

    Not in development mode, because its warnings would concern the other program.
    """
    path = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": ""}


def own_environment() -> dict[str, str]:
    """Return this process's environment without LD_PRELOAD.

    A sanitized build runs with the sanitizer's libraries in LD_PRELOAD, with which curl hangs at
    its start.
    """
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
