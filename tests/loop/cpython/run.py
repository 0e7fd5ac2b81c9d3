"""Run CPython's own tests of server transports on our loops, with the stock loops beside them.

    python tests/loop/cpython/run.py                     all; prints a table
    python tests/loop/cpython/run.py test_ssl --verbose  some modules; also what stock loops fail

Rules of this file: the tests are those of the running interpreter, unchanged. Tests that do not
apply to our loops are listed in not_applicable.toml, each with its reason. A failure that is not
listed fails the run; so does a listed test that passes or does not exist in this Python, so that
the list stays honest. The stock loops are the control: their failures are counted, not judged.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).parent
LIST = HERE / "not_applicable.toml"

COLUMNS = ("asyncio", "ours on asyncio", "uvloop", "ours on uvloop")

#: The tests of server transports: everything that makes a server or takes an accepted socket. The
#: rest of these modules is about clients, pipes, subprocesses and policies, which are up to the
#: base loop.
PARTS: dict[str, tuple[str, ...]] = {
    "test_streams": ("*",),
    "test_server": ("*",),
    "test_buffered_proto": ("*",),
    "test_ssl": ("*",),
    "test_sslproto": ("*.SelectorStartTLSTests.*",),
    "test_events": (
        "*LoopTests.test_*server*",
        "*LoopTests.test_*accept*",
        "*LoopTests.test_close_running_event_loop",
        "*TestServer.*",
    ),
    "test_unix_events": ("*.test_create_unix_server*", "*Cleanup*"),
    "test_base_events": ("*.test_create_server*", "*.test_accept_connection*"),
    "test_context": ("*",),
}

#: A test that reports nothing for this long hangs, seconds; the tests' own timeouts are 10 or less.
TIME_LIMIT = 60


@dataclass
class Entry:
    """One paragraph of the list.

    Attributes:
        tests: patterns of test names (fnmatch).
        reason: why they do not apply.
        on: the base loops to which it applies.
        python: the versions to which it applies; empty for all.
        hangs: they are not even started.
        not_everywhere: not every release of these versions has them.
    """

    tests: list[str]
    reason: str
    on: list[str] = field(default_factory=lambda: ["asyncio", "uvloop"])
    python: list[str] = field(default_factory=list)
    hangs: bool = False
    not_everywhere: bool = False

    def holds(self, column: str, version: str) -> bool:
        """Return whether the entry applies to this column on this Python."""
        return column.removeprefix("ours on ") in self.on and version in (self.python or [version])

    def names(self, test: str) -> bool:
        """Return whether the entry is about this test."""
        return any(fnmatch.fnmatchcase(test, pattern) for pattern in self.tests)


@dataclass
class Outcome:
    """How one test ended: passed, failed, skipped or hung; and its output."""

    result: str
    text: str = ""


def read_list(text: str) -> list[Entry]:
    """Return the entries of the list.

    Raises:
        TypeError: an entry has an unknown key or lacks one.
    """
    return [Entry(**one) for one in tomllib.loads(text)["not-applicable"]]


def judge(
    column: str, version: str, entries: list[Entry], outcomes: dict[str, Outcome]
) -> tuple[Counter[str], list[str]]:
    """Compare the outcomes on one of our loops with the list.

    Args:
        column: the loop.
        version: of Python, ``3.11``.
        entries: the list.
        outcomes: by name of the test, all modules together.

    Returns:
        Counts by passed, failed, skipped, hung and not applicable; and a line for each mistake.
    """
    counts: Counter[str] = Counter()
    wrong = []
    valid = [entry for entry in entries if entry.holds(column, version)]
    for test, outcome in outcomes.items():
        listed = any(entry.names(test) for entry in valid)
        bad = outcome.result in ("failed", "hung")
        counts["not applicable" if listed and bad else outcome.result] += 1
        if bad and not listed:
            wrong.append(f"{column}: {test} {outcome.result}\n{outcome.text}".rstrip())
        elif listed and outcome.result == "passed":
            wrong.append(f"{column}: {test} is listed as not applicable, but passes")
    for entry in valid:
        wrong += [
            f"{column}: {pattern} is listed, but this Python has no such test"
            for pattern in entry.tests
            if not entry.not_everywhere
            and not any(fnmatch.fnmatchcase(test, pattern) for test in outcomes)
        ]
    return counts, wrong


def run_module(column: str, module: str, left_out: list[str]) -> dict[str, Outcome]:
    """Run a module on a column; a test that hangs is killed, and the others go on without it.

    Args:
        column: one of `COLUMNS`.
        module: one of `PARTS`.
        left_out: patterns of tests that are known to hang.
    """
    outcomes: dict[str, Outcome] = {}
    while True:
        command = [sys.executable, "-X", "faulthandler", str(HERE / "one.py"), column, module]
        for pattern in left_out:
            command += ["--hangs", pattern]
        for test in outcomes:
            command += ["--skip", test]
        command += PARTS[module]
        begun, ended = _follow(command, outcomes)
        if begun is None:
            return outcomes
        outcomes[begun] = Outcome("hung", ended)


def _follow(command: list[str], outcomes: dict[str, Outcome]) -> tuple[str | None, str]:
    """Read the reports of one process; return the test that hung or killed it, and the output."""
    begun = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            words = pool.submit(process.stderr.read)
            while True:
                line = pool.submit(process.stdout.readline)
                try:
                    report: dict[str, str] = json.loads(line.result(TIME_LIMIT) or "{}")
                except TimeoutError:
                    process.kill()
                    break
                if not report:
                    break
                begun = report.get("begin")
                if "end" in report:
                    outcomes[report["end"]] = Outcome(report["outcome"], report["text"])
            code = process.wait()
        said = words.result().decode(errors="replace")
    if begun is None and code:
        sys.exit(f"{' '.join(command)}: ended with {code}\n{said}")
    return begun, said


def table(columns: list[str], counts: dict[str, Counter[str]]) -> str:
    """Return the counts as text, a row per column."""
    heads = ("run", "passed", "skipped", "not applicable", "failed")
    rows: list[tuple[str, ...]] = [("", *heads)]
    for column in columns:
        found = counts[column]
        bad = found["failed"] + found["hung"]
        done = found.total() - found["skipped"]
        numbers = (done, found["passed"], found["skipped"], found["not applicable"], bad)
        rows.append((column, *map(str, numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--column", action="append", choices=COLUMNS, help="default: all")
    parser.add_argument(
        "--verbose", action="store_true", help="show what the stock loops fail, too"
    )
    wanted = parser.parse_args()
    if importlib.util.find_spec("test.test_asyncio") is None:
        print(
            f"{sys.executable} has no test.test_asyncio, the tests of CPython itself "
            "(Debian: libpython3-testsuite)",
            file=sys.stderr,
        )
        return 1
    version = ".".join(map(str, sys.version_info[:2]))
    modules = wanted.modules or list(PARTS)
    columns = wanted.column or list(COLUMNS)
    entries = read_list(LIST.read_text())
    outcomes: dict[str, dict[str, Outcome]] = {column: {} for column in columns}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(
                run_module, column, module, hanging(entries, column, version, module)
            ): column
            for module in modules
            for column in columns
        }
        for job in concurrent.futures.as_completed(jobs):
            outcomes[jobs[job]].update(job.result())
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for column in columns:
        if column.startswith("ours"):
            counts[column], lines = judge(
                column, version, about(entries, modules), outcomes[column]
            )
            wrong += lines
        else:
            counts[column] = Counter(outcome.result for outcome in outcomes[column].values())
            if wanted.verbose:
                for test, outcome in outcomes[column].items():
                    if outcome.result in ("failed", "hung"):
                        print(f"{column}: {test} {outcome.result}\n{outcome.text}")
    for line in wrong:
        print(line)
    print(f"CPython {platform.python_version()}'s tests of server transports")
    print(table(columns, counts))
    return 1 if wrong else 0


def about(entries: list[Entry], modules: list[str]) -> list[Entry]:
    """Return the entries about some modules; those of the others cannot be judged."""
    return [
        replace(entry, tests=[test for test in entry.tests if test.split(".")[0] in modules])
        for entry in entries
    ]


def hanging(entries: list[Entry], column: str, version: str, module: str) -> list[str]:
    """Return the tests of a module that are listed as hanging on a column's base."""
    return [
        test
        for entry in entries
        if entry.hangs and entry.holds(column, version)
        for test in entry.tests
        if test.startswith(f"{module}.")
    ]


if __name__ == "__main__":
    sys.exit(main())
