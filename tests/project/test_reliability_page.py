"""docs/reliability.md: the tests that it names exist, and it names those that show figures.

Rules of this file: files are read, nothing is run.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILE = TESTS.parent / "docs" / "reliability.md"
PAGE = FILE.read_text() if FILE.exists() else ""

pytestmark = pytest.mark.skipif(not PAGE, reason="docs/ is not beside these tests")

SOURCES = {path: path.read_text() for path in TESTS.glob("**/test_*.py")}


def test_tests_on_the_page_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for text in SOURCES.values()
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)
    }
    assert len(named) > 30
    assert sorted(named - defined) == []
    files = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert [path for path in files if not (TESTS.parent / path).exists()] == []


def test_figures_are_of_tests_that_print_them() -> None:
    """Each row with a figure names a test in a file that shows some."""
    show = {path for path, text in SOURCES.items() if re.search(r"\bshow\(|\battempts\(", text)}
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    with_figures = [row for row in rows if any(row[3:]) and row[0] != "fault"]
    assert len(with_figures) > 10
    for row in with_figures:
        names = re.findall(r"`(test_\w+)`", row[2])
        assert any(f"def {name}(" in SOURCES[path] for name in names for path in show), row
