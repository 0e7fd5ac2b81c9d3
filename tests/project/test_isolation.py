"""A test run has a home directory of its own, and fails if it leaves anything outside.

The tests run pytest, with the plugin that every run here has, on tests that do forbidden things.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import isolation
from support.environment import clean_environment
from support.isolation import listing
from support.waiting import PATIENCE

from fastlisten.config import default_config

TESTS = """
import os, pathlib, subprocess, sys, tempfile
def test_writes_outside():
    for name in {names}:
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
def test_has_its_own_home(record_property):
    home = os.environ["HOME"]
    assert os.path.expanduser("~") == home
    assert tempfile.gettempdir() == home + "/tmp"
    assert "STATE_DIRECTORY" not in os.environ
    child = subprocess.run([sys.executable, "-c", "import os; print(os.path.expanduser('~'))"],
        capture_output=True, text=True)
    assert child.stdout.strip() == home
    pathlib.Path(home, "mine").write_text("")
def test_more():
    pass
"""


def test_run_has_its_own_home() -> None:
    home = Path(os.environ["HOME"])
    assert home.name.startswith("fastlisten-tests-")
    assert Path(tempfile.gettempdir()) == home / "tmp"
    data = default_config().process["server.data-directory"]
    assert data == str(home / ".local" / "share" / "fastlisten")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    support = tmp_path / "repository" / "tests" / "support"
    support.mkdir(parents=True)
    (tmp_path / "home" / ".local" / "share").mkdir(parents=True)
    (support / "__init__.py").touch()
    shutil.copy(isolation.__file__, support)
    (support / "__init__.py").touch()
    names = "pytest_sessionfinish, pytest_terminal_summary, pytest_unconfigure"
    (tmp_path / "repository" / "tests" / "conftest.py").write_text(
        f"from support.isolation import {names}\n"
    )
    (tmp_path / "repository" / "pytest.ini").write_text("[pytest]\npythonpath = tests\n")
    return tmp_path / "repository"


def run(
    repository: Path, *names: Path, options: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    tests = repository / "tests" / "test_it.py"
    tests.write_text(TESTS.format(names=[str(name) for name in names]))
    temporary = repository.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    inherited = clean_environment(**environ)
    for name in ("PYTEST_DEBUG_TEMPROOT", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        inherited.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "tests"],
        cwd=repository,
        env=inherited
        | {
            "HOME": str(repository.parent / "home"),
            "TMPDIR": str(temporary),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take time
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout
    assert not list(temporary.glob("fastlisten-tests-*"))
    return done


@pytest.mark.parametrize("options", ["", "-p xdist.plugin -n 2", "-p no:cacheprovider -q"])
def test_run_that_leaves_nothing_passes(repository: Path, options: str) -> None:
    done = run(repository, options=options)
    assert (done.returncode, "left behind" in done.stdout) == (0, False)


@pytest.mark.parametrize("options", ["", "-p xdist.plugin -n 2"])
def test_run_that_leaves_something_fails(repository: Path, options: str) -> None:
    left = [
        repository.parent / "home" / ".local" / "share" / "fastlisten" / "self-signed.pem",
        repository / "core",
        repository.parent / "xdg" / "fastlisten" / "x",
        repository.parent / "state" / "x",
    ]
    places = {
        "XDG_DATA_HOME": str(repository.parent / "xdg"),
        "STATE_DIRECTORY": str(repository.parent / "state"),
    }
    done = run(repository, *left, options=options, **places)
    assert done.returncode == 1
    section = done.stdout.partition("left behind by the tests")[2]
    assert [name for name in left if f"{name}\n" not in section] == []


def test_new_files_in_the_work_tree_are_reported(repository: Path) -> None:
    (repository / ".git").mkdir()
    done = run(repository, repository / "core")
    assert done.returncode == 0
    assert f"{repository / 'core'}\n" in done.stdout.partition("left behind by the tests")[2]


def test_files_of_tools_and_developers_are_ignored(tmp_path: Path) -> None:
    for name in ("__pycache__/a.pyc", ".git/index", ".venv-3.12/bin/python", ".coverage.1", "b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert sorted(listing(tmp_path)) == [str(tmp_path / "b"), str(tmp_path / "b" / "c")]
