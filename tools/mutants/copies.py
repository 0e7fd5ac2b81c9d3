"""A copy of the repository in which mutations are applied, built and tested, one after the other.

Rules of this file: blocking; one thread per copy. Whatever a mutation changes is as it was before
the next one begins. Tests of mutated code may hang, or leave processes behind: each run has a
session of its own, which is killed as a whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.mutants.mutations import ROOT, Mutation
from tools.mutants.prepared import run_pytest
from tools.mutants.results import Outcome

__all__ = ["Copy"]

#: Seconds that one test, and all tests of a mutation, may take. What takes longer hangs.
TEST_TIME = 60
RUN_TIME = 400

#: Seconds that a test waits for what must happen (tests/support/waiting.py). Mutations make many
#: wait in vain.
PATIENCE = 15

#: Folders of the work tree that are not copied, besides hidden ones.
_LEFT_OUT = frozenset({"dist", "__pycache__"})

#: Seconds for building, which may be done by several at a time.
BUILD_TIME = 600


class Copy:
    """A copy of the tracked files, built.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Tests that have passed without a mutation.
        self._passed: set[str] = set()
        self._log = path.parent / f"{path.name}.log"
        self._environment = {
            **os.environ,
            # Programs that the tests start import the copy too, wherever they run.
            "PYTHONPATH": str(path),
            # The engines as Python; not optimised, which builds faster.
            "FASTLISTEN_PURE": "1",
            "FASTLISTEN_DEBUG": "1",
            "TEST_PATIENCE": str(PATIENCE),
        }

    def make(self) -> None:
        """Copy the work tree, and build those native modules that are not built yet."""
        for path in _files(ROOT):
            target = self.path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        if message := self._build():
            raise RuntimeError(f"the package cannot be built:\n{message}")
        # By default a compiled file counts as current if second and size agree; a mutation's may.
        compile_all = [sys.executable, "-m", "compileall", "-q", "fastlisten"]
        self._run([*compile_all, "--invalidation-mode", "checked-hash"], BUILD_TIME)

    def copy_of(self, other: Copy) -> None:
        """Become the same as another copy."""
        shutil.copytree(other.path, self.path, symlinks=True)

    def try_mutation(self, mutation: Mutation) -> Outcome:
        """Apply a mutation, build it if necessary, run its tests, take it back."""
        start = time.monotonic()
        source = self.path / mutation.file
        before = source.read_text(encoding="utf-8")
        with _restored(source, *(self._products() if mutation.is_native else ())):
            source.write_text(mutation.applied(before), encoding="utf-8")
            if mutation.is_native and (message := self._build()):
                return Outcome("broken", f"it does not build: {message}", time.monotonic() - start)
            outcome = self._test(mutation.tests)
        if outcome.verdict == "killed":
            outcome = self._confirmed(outcome, mutation.tests)
        return Outcome(outcome.verdict, outcome.detail, time.monotonic() - start)

    def _confirmed(self, outcome: Outcome, tests: Iterable[str]) -> Outcome:
        """Run the test that has failed without the mutation: it must pass, or it proves nothing."""
        match = re.match(r"(?:FAILED|ERROR) (tests/[^\s\[]+)", outcome.detail)
        for test in [match[1]] if match else tests:
            if test not in self._passed:
                without = self._test([test])
                if without.verdict != "survived":
                    return Outcome("broken", f"fails without it too: {without.detail}", 0)
                self._passed.add(test)
        return outcome

    def _products(self) -> list[Path]:
        """Return what building makes from the sources."""
        package = self.path / "fastlisten"
        return [*package.rglob("*.so"), *package.rglob("*.c"), *(self.path / "build").rglob("*.o")]

    def _build(self) -> str:
        """Build what has changed; return the end of the output if that fails."""
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        status = self._run(command, BUILD_TIME)
        return "" if status == 0 else self._log.read_text(errors="replace")[-2000:]

    def _test(self, tests: Iterable[str]) -> Outcome:
        temporary = self.path.parent / f"{self.path.name}.tmp"
        arguments = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
        arguments += [f"--timeout={TEST_TIME}", f"--basetemp={temporary}", *tests]
        status = run_pytest(arguments, self.path, self._environment, self._log, RUN_TIME)
        output = self._log.read_text(errors="replace")
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if status == 0:
            return Outcome("survived", "", 0)
        if status is None:
            return Outcome("killed", "the tests did not end", 0)
        if status < 0:
            return Outcome("killed", signal.Signals(-status).name, 0)
        if status == 1:
            return Outcome("killed", failed[0][:200] if failed else output[-200:], 0)
        # Nothing was collected, or a file of tests could not be imported.
        return Outcome("broken", f"pytest ended with status {status}: {output[-1000:]}", 0)

    def _run(self, command: list[str], seconds: int) -> int | None:
        """Run a command in the copy; return its status, None if its time was over."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  # our own commands
                command,
                cwd=self.path,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def _restored(*paths: Path) -> Iterator[None]:
    """Give files back their content and times: what is built from them is then current again."""
    kept = []
    for number, path in enumerate(paths):
        aside = path.with_name(f".{number}.kept")
        shutil.copy2(path, aside)
        kept.append((aside, path))
    try:
        yield
    finally:
        for aside, path in kept:
            os.replace(aside, path)


def _files(root: Path) -> list[Path]:
    """Return the files to copy: sources, and what has been built from native ones.

    A module that is built from a .py is left out, because it would be imported instead of that.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "." and name not in _LEFT_OUT]
        native = {Path(name).stem for name in names if name.endswith(".pyx")}
        found += [
            Path(folder) / name
            for name in names
            if not name.endswith((".pyc", ".so", ".c")) or name.partition(".")[0] in native
        ]
    return found
