"""The environments in which tests run programs: ours, and those of others."""

from __future__ import annotations

import os
from pathlib import Path

import fastlisten

__all__ = ["clean_environment", "importing_environment", "own_environment"]

#: Where the package is that is tested, wherever it is installed; and where `support` is.
_PACKAGE = Path(fastlisten.__file__).parent.parent
_TESTS = Path(__file__).parents[1]


def clean_environment(**changes: str) -> dict[str, str]:
    """Return an environment in which this package and the tests' handlers are found."""
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in ("INVOCATION_ID", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    }
    environ["PYTHONPATH"] = os.pathsep.join(map(str, (_PACKAGE, _TESTS)))
    return environ | changes


def importing_environment() -> dict[str, str]:
    """Return the environment of a program that is to import the same fastlisten as the tests.

    Not in development mode: what it would warn about is the program's own business.
    """
    path = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": ""}


def own_environment() -> dict[str, str]:
    """Return this process's environment without what is preloaded into it.

    A sanitized build runs with the sanitizer's libraries in LD_PRELOAD; with them curl hangs at its
    start.
    """
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
