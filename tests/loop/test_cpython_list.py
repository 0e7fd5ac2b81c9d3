"""How the runner of CPython's own tests judges outcomes by its list.

Rules of this file: none of CPython's tests is run here (`cpython/run.py` does that, as a part of
`.ci/run`); the outcomes are made up.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CPYTHON = Path(__file__).parent / "cpython"


@pytest.fixture(scope="module")
def runner() -> Any:
    """Return the runner as a module."""
    spec = importlib.util.spec_from_file_location("cpython_run", CPYTHON / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    # Its data classes look for the module that they are in.
    sys.modules["cpython_run"] = module
    spec.loader.exec_module(module)
    return module


LIST = """
[[not-applicable]]
tests = ["test_ssl.A.test_no", "test_ssl.B.*"]
on = ["uvloop"]
reason = "They look into uvloop."

[[not-applicable]]
tests = ["test_server.C.test_old"]
python = ["3.11"]
reason = "It was so once."
"""


def judged(runner: Any, column: str, version: str, outcomes: dict[str, str]) -> tuple[Any, Any]:
    found = {test: runner.Outcome(result, "words") for test, result in outcomes.items()}
    counts, wrong = runner.judge(column, version, runner.read_list(LIST), found)
    return dict(counts), wrong


def test_listed_test_may_fail(runner: Any) -> None:
    outcomes = {
        "test_ssl.A.test_no": "failed",
        "test_ssl.B.test_x": "hung",
        "test_ssl.A.b": "passed",
    }
    counts, wrong = judged(runner, "ours on uvloop", "3.12", outcomes)
    assert counts == {"not applicable": 2, "passed": 1}
    assert wrong == []


def test_unlisted_failure_is_reported(runner: Any) -> None:
    """Neither anywhere, nor on this base loop, nor on this Python."""
    outcomes = {"test_ssl.A.test_no": "failed", "test_server.C.test_old": "hung"}
    counts, wrong = judged(runner, "ours on asyncio", "3.12", outcomes)
    assert counts == {"failed": 1, "hung": 1}
    assert wrong == [
        "ours on asyncio: test_ssl.A.test_no failed\nwords",
        "ours on asyncio: test_server.C.test_old hung\nwords",
    ]


def test_listed_test_that_passes_is_reported(runner: Any) -> None:
    outcomes = {"test_ssl.A.test_no": "passed", "test_ssl.B.test_x": "failed"}
    _, wrong = judged(runner, "ours on uvloop", "3.12", outcomes)
    assert wrong == ["ours on uvloop: test_ssl.A.test_no is listed as not applicable, but passes"]


def test_listed_test_must_exist(runner: Any) -> None:
    _, wrong = judged(runner, "ours on asyncio", "3.11", {"test_ssl.A.test_no": "passed"})
    assert wrong == [
        "ours on asyncio: test_server.C.test_old is listed, but this Python has no such test"
    ]


def test_entry_for_tests_that_only_some_releases_have(runner: Any) -> None:
    text = '[[not-applicable]]\ntests = ["a.B.c"]\nreason = "x."\nnot_everywhere = true\n'
    for outcomes in ({}, {"a.B.c": runner.Outcome("failed")}):
        _, wrong = runner.judge("ours on uvloop", "3.14", runner.read_list(text), outcomes)
        assert wrong == []


def test_run_of_some_modules(runner: Any) -> None:
    """What the list says about the other modules is ignored, also within an entry."""
    text = '[[not-applicable]]\ntests = ["a.B.c", "d.E.f"]\nreason = "x."\n'
    entries = runner.about(runner.read_list(text), ["a"])
    _, wrong = runner.judge("ours on uvloop", "3.12", entries, {"a.B.c": runner.Outcome("failed")})
    assert wrong == []


def test_skipped_test_is_neither_failure_nor_pass(runner: Any) -> None:
    outcomes = {"test_ssl.A.test_no": "skipped", "test_ssl.B.test_x": "skipped"}
    counts, wrong = judged(runner, "ours on uvloop", "3.12", outcomes)
    assert counts == {"skipped": 2}
    assert wrong == []


def test_unknown_key_in_the_list(runner: Any) -> None:
    with pytest.raises(TypeError):
        runner.read_list('[[not-applicable]]\ntests = []\nreasn = "typing"\n')


def test_list_is_short_and_gives_reasons(runner: Any) -> None:
    entries = runner.read_list((CPYTHON / "not_applicable.toml").read_text())
    assert 0 < len(entries) < 10
    for entry in entries:
        assert entry.reason.endswith(".")
        assert set(entry.on) <= {"asyncio", "uvloop"}
        assert set(entry.python) <= {"3.11", "3.12", "3.13", "3.14", "3.15"}
        for pattern in entry.tests:
            assert pattern.split(".")[0] in runner.PARTS


def test_table_of_results(runner: Any) -> None:
    from collections import Counter

    counts = Counter({"passed": 10, "failed": 1, "hung": 1, "skipped": 3, "not applicable": 2})
    assert runner.table(["ours on uvloop"], {"ours on uvloop": counts}).splitlines() == [
        "                run  passed  skipped  not applicable  failed",
        "ours on uvloop   14      10        3               2       2",
    ]
