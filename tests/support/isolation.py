"""A home directory and a directory for temporary files for this test run alone.

Rules of this file: imported by conftest.py before anything else; programs started later inherit the
environment. Files that appear in the real home or among the sources meanwhile fail the run; in a
git work tree they are only reported, since somebody may be working there.
"""

from __future__ import annotations

import os
import shutil
import site
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = [
    "appeared",
    "listing",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_unconfigure",
]

_ROOT = Path(__file__).parents[2]

#: Files of tools (a part of .gitignore), which are ignored.
_TOOLS = {
    *("__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".benchmarks"),
    *(".git", "build", "dist", "htmlcov", "wheelhouse", "fastlisten.egg-info"),
}


def listing(top: Path) -> Iterator[str]:
    """List the files and directories below a directory, except those of tools."""
    for path, directories, files in os.walk(top):
        directories[:] = [
            name for name in directories if name not in _TOOLS and not name.startswith(".venv")
        ]
        for name in (*directories, *files):
            if not name.startswith(".coverage"):
                yield os.path.join(path, name)


def _data_directories() -> list[Path]:
    """Return the program's default data directories."""
    home = Path(os.path.expanduser("~"), ".local", "share", "fastlisten")
    found = [home]
    if data := os.environ.get("XDG_DATA_HOME"):
        found.append(Path(data, "fastlisten"))
    if state := os.environ.get("STATE_DIRECTORY"):
        found.append(Path(state.partition(":")[0]))
    return found


def _everything() -> set[str]:
    found = {name for top in (_ROOT, *_watched) for name in (str(top), *listing(top))}
    return {name for name in found if os.path.lexists(name)}


def appeared() -> list[str]:
    """Return the files that have appeared since the start, in the real home or the sources."""
    return sorted(_everything() - _before)


def _forgiven(name: str) -> bool:
    return name.startswith(f"{_ROOT}/") and (_ROOT / ".git").exists()


def _move_in() -> str:
    """Create the home directory; return its path."""
    # pytest keeps the files of failed tests where it usually does.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    # Packages installed for this user stay importable.
    os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())
    home = tempfile.mkdtemp(prefix="fastlisten-tests-")
    os.chmod(home, 0o711)  # programs that the tests start as another user find their files
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "INVOCATION_ID", "NOTIFY_SOCKET"):
        os.environ.pop(name, None)
    os.environ["HOME"] = home
    os.environ["TMPDIR"] = os.path.join(home, "tmp")
    os.mkdir(os.environ["TMPDIR"])
    tempfile.tempdir = None  # to be looked up again
    return home


_watched: list[Path] = []
_before: set[str] = set()
_home = ""
_left: list[str] = []

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit
    _watched = _data_directories()
    _before = _everything()
    _home = _move_in()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if it has left files behind."""
    if _home:
        _left[:] = appeared()
        if not all(map(_forgiven, _left)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report those files."""
    if _left:
        terminalreporter.section("left behind by the tests", red=True)
        for name in _left:
            terminalreporter.line(name)


def pytest_unconfigure() -> None:
    """Remove the home directory."""
    if _home:
        shutil.rmtree(_home, ignore_errors=True)
