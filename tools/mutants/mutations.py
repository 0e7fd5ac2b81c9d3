"""The list of mutations.

Rules of this file: reading and checking, without running anything.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Mutation", "mistakes", "read_mutations", "support_files"]

#: Of the repository.
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change that tests must notice.

    Attributes:
        name: unique; ``area: what is removed``.
        file: what is changed, from the root of the repository.
        old: the text that is replaced; it occurs exactly once.
        new: what replaces it.
        tests: files of tests that should notice, from the root of the repository.
        survives: why no test can notice; empty for most.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    @property
    def is_native(self) -> bool:
        """Whether something must be compiled."""
        return not self.file.endswith(".py")

    def applied(self, text: str) -> str:
        """Return the text of the file with the change."""
        return text.replace(self.old, self.new)


def read_mutations(folder: Path = ROOT / "tools" / "mutants") -> list[Mutation]:
    """Return the mutations of all files of the list, in order of file."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]:
            entry["tests"] = tuple(entry["tests"])
            found.append(Mutation(**entry))
    return found


def mistakes(mutations: list[Mutation], root: Path = ROOT) -> list[str]:
    """Return what is wrong with a list, a line for each mistake."""
    counts = Counter(one.name for one in mutations)
    found = [
        f"{name}: {count} mutations have this name" for name, count in counts.items() if count > 1
    ]
    texts: dict[str, str] = {}
    for one in mutations:
        path = root / one.file
        if not path.is_file():
            found.append(f"{one.name}: there is no {one.file}")
            continue
        if one.file not in texts:
            texts[one.file] = path.read_text(encoding="utf-8")
        times = texts[one.file].count(one.old)
        if times != 1:
            found.append(f"{one.name}: `old` occurs {times} times in {one.file}")
        if one.old == one.new:
            found.append(f"{one.name}: it changes nothing")
        if not one.tests:
            found.append(f"{one.name}: no tests are named")
        found += [
            f"{one.name}: there is no {test}" for test in one.tests if not (root / test).is_file()
        ]
        if path.suffix == ".py" and times == 1:
            try:
                ast.parse(one.applied(texts[one.file]))
            except SyntaxError as error:
                found.append(f"{one.name}: line {error.lineno} would be a syntax error")
    return found


def support_files(test: Path, root: Path = ROOT) -> set[Path]:
    """Return the files of tests/ that a test file depends on, itself included."""
    folders = [root / "tests", *(folder for folder in test.parents if root in folder.parents)]
    found = {folder / "conftest.py" for folder in folders if (folder / "conftest.py").is_file()}
    waiting = [test, *found]
    found.add(test)
    while waiting:
        tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        for name in _imported(tree):
            path = root / "tests" / (name.replace(".", "/") + ".py")
            if path.is_file() and path not in found:
                found.add(path)
                waiting.append(path)
    return found


def _imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names
