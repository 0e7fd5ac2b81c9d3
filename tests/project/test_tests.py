"""How the tests are laid out: their imports of each other, their names, the map of support.

Rules of this file: sources are read, no test module is imported. Made-up sources show that the
rules can fail.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import support

TESTS = Path(__file__).parents[1]
SUPPORT = Path(support.__file__).parent


def imported(source: str) -> Iterator[str]:
    """Yield the names of all modules that a source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def forbidden(source: str) -> list[str]:
    """Return what a source imports from the tests besides `support`."""
    return [
        name
        for name in imported(source)
        if name.startswith((".", "test_", "tests", "conftest")) or ".test_" in name
    ]


def sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def test_forbidden_imports_are_found() -> None:
    assert forbidden("import test_b") == ["test_b"]
    assert forbidden("def f():\n    from test_b import x") == ["test_b"]
    assert forbidden("from tests.http import test_b") == ["tests.http"]
    assert forbidden("from . import test_b") == ["."]
    assert forbidden("import conftest") == ["conftest"]
    assert forbidden("from support.waiting import until\nimport testing\nimport pytest") == []


def test_tests_import_only_support() -> None:
    found = {str(path): forbidden(path.read_text("utf-8")) for path in sources(TESTS)}
    assert len(found) > 250
    assert {path: names for path, names in found.items() if names} == {}


def test_file_names_are_unique() -> None:
    """pytest imports test files by their base names."""
    names = Counter(path.name for path in sources(TESTS) if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_map_of_support_lists_each_module_once() -> None:
    assert support.__doc__ is not None
    named: list[str] = []
    for line in support.__doc__.splitlines()[1:]:
        if line.startswith("    "):
            # The names end where the description begins, after at least two spaces.
            named += line.strip().partition("  ")[0].split(", ")
    there = [path.stem for path in SUPPORT.glob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(there)
