"""Run parts of one module of CPython's test_asyncio on one kind of loop.

    python tests/loop/cpython/one.py COLUMN MODULE [--skip TEST]... [--hangs PATTERN]... PATTERN...

Rules of this file: whatever loop a test makes, by name, by policy or by default, is of the column's
class; nothing else of asyncio or of its tests is changed. Standard output gets a line of JSON for
every test that begins ({"begin": id}) and for every test that ends ({"end": id, "outcome": ...,
"text": ...}), so that its reader knows which test hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import importlib
import json
import os
import sys
import tempfile
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGE = "test.test_asyncio."


def loop_class(column: str) -> Any:
    """Return a column's class of loops; like asyncio's it takes a selector."""
    # The package under test is the one that this file belongs to.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from fastlisten.loop.event_loop import AsyncioLoop

    if column == "asyncio":
        return asyncio.SelectorEventLoop
    if column == "ours on asyncio":
        return AsyncioLoop
    import uvloop

    from fastlisten.loop.uvloop_loop import UvloopLoop

    base: Any = uvloop.Loop if column == "uvloop" else UvloopLoop

    class OnUvloop(base):  # type: ignore[misc]
        def __init__(self, selector: object = None) -> None:
            super().__init__()

    return OnUvloop


def close_loop(loop: Any) -> None:
    """Do what test_asyncio.utils does after a test, even for a loop that hides its executor."""
    if loop.is_closed():
        return
    executor = getattr(loop, "_default_executor", None)
    if executor is not None:
        executor.shutdown(wait=True)
    else:
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def use(loops: Any) -> None:
    """Make asyncio and the tests' own helpers return loops of this class."""
    everywhere: Any = asyncio
    everywhere.SelectorEventLoop = loops
    if hasattr(asyncio, "EventLoop"):
        everywhere.EventLoop = loops
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy: Any = type(asyncio.get_event_loop_policy())
    policy._loop_factory = loops
    utils: Any = importlib.import_module(PACKAGE + "utils")
    utils.TestCase.close_loop = staticmethod(close_loop)


_Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Reporter(unittest.TextTestResult):
    """Reports each test as soon as it begins and ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.outcome = ""
        self.text = ""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcome, self.text = "passed", ""
        say(begin=name_of(test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        say(end=name_of(test), outcome=self.outcome, text=self.text)

    def _note(self, outcome: str, error: _Error, test: unittest.TestCase) -> None:
        self.outcome = outcome
        self.text = self._exc_info_to_string(error, test)  # type: ignore[attr-defined]

    def addError(self, test: unittest.TestCase, err: _Error) -> None:
        super().addError(test, err)
        self._note("failed", err, test)

    def addFailure(self, test: unittest.TestCase, err: _Error) -> None:
        super().addFailure(test, err)
        self._note("failed", err, test)

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: _Error | None
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note("failed", err, test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcome, self.text = "skipped", reason


def name_of(test: unittest.TestCase) -> str:
    """Return module.Class.method without the package."""
    return test.id().removeprefix(PACKAGE)


def matches(test: unittest.TestCase, patterns: list[str]) -> bool:
    """Return whether one of the patterns matches the test."""
    return any(fnmatch.fnmatchcase(name_of(test), pattern) for pattern in patterns)


def say(**what: str) -> None:
    """Write a line of JSON."""
    # Not to sys.stdout: a test may have replaced it.
    os.write(REPORT, json.dumps(what).encode() + b"\n")


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of a suite of suites."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests_in(one)
        else:
            yield one


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("column")
    parser.add_argument("module")
    parser.add_argument("patterns", nargs="+")
    parser.add_argument("--skip", action="append", default=[], help="done already")
    parser.add_argument("--hangs", action="append", default=[], help="not begun, but reported")
    wanted = parser.parse_args()
    use(loop_class(wanted.column))
    module = importlib.import_module(PACKAGE + wanted.module)
    chosen = [
        test
        for test in tests_in(unittest.defaultTestLoader.loadTestsFromModule(module))
        if name_of(test) not in wanted.skip and matches(test, wanted.patterns)
    ]
    for test in chosen:
        if matches(test, wanted.hangs):
            say(end=name_of(test), outcome="hung", text="listed so, hence not begun")
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        runner = unittest.TextTestRunner(resultclass=Reporter, verbosity=0)
        runner.run(unittest.TestSuite(test for test in chosen if not matches(test, wanted.hangs)))


if __name__ == "__main__":
    # The tests may print whatever they like.
    REPORT = os.dup(1)
    os.dup2(2, 1)
    main()
