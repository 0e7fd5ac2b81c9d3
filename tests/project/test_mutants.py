"""The list of mutations (tools/mutants) fits the sources: a change to them drops none unseen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools.mutants.__main__ import report
from tools.mutants.mutations import ROOT, Mutation, mistakes, read_mutations, support_files
from tools.mutants.results import Outcome, Results

MUTATIONS = read_mutations()


def mutation(**changes: object) -> Mutation:
    values: dict[str, object] = {
        "name": "a: b",
        "file": "code.py",
        "old": "a = 1",
        "new": "a = 2",
        "tests": ("tests/test_code.py",),
    }
    return Mutation(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "code.py").write_text("a = 1\nb = 1\nc = 1\n")
    (tmp_path / "tests" / "support").mkdir(parents=True)
    (tmp_path / "tests" / "test_code.py").write_text("from support.one import x\nimport os\n")
    (tmp_path / "tests" / "support" / "one.py").write_text("from support import two\n")
    (tmp_path / "tests" / "support" / "two.py").write_text("")
    (tmp_path / "tests" / "support" / "three.py").write_text("")
    return tmp_path


def test_list_fits_the_sources() -> None:
    assert mistakes(MUTATIONS) == []


def test_list_covers_the_package() -> None:
    assert len(MUTATIONS) >= 120
    native = [one for one in MUTATIONS if one.is_native]
    assert len(native) >= 60
    areas = Counter(one.name.partition(":")[0] for one in MUTATIONS)
    assert min(areas.values()) >= 2, areas


def test_survivors_are_few_and_have_a_reason() -> None:
    listed = [one for one in MUTATIONS if one.survives]
    assert len(listed) <= len(MUTATIONS) // 8
    assert all(len(one.survives) > 20 for one in listed)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"old": "= 1"}, "a: b: `old` occurs 3 times in code.py"),
        ({"old": "a = 3"}, "a: b: `old` occurs 0 times in code.py"),
        ({"new": "a = 1"}, "a: b: it changes nothing"),
        ({"file": "other.py"}, "a: b: there is no other.py"),
        ({"tests": ("tests/test_other.py",)}, "a: b: there is no tests/test_other.py"),
        ({"tests": ()}, "a: b: no tests are named"),
        ({"new": "a ="}, "a: b: line 1 would be a syntax error"),
    ],
)
def test_a_mistake_is_reported(root: Path, changes: dict[str, object], mistake: str) -> None:
    assert mistakes([mutation()], root) == []
    assert mistakes([mutation(**changes)], root) == [mistake]


def test_a_name_used_twice_is_reported(root: Path) -> None:
    twice = [mutation(), mutation(old="b = 1")]
    assert mistakes(twice, root) == ["a: b: 2 mutations have this name"]


def test_a_test_depends_on_what_its_support_imports(root: Path) -> None:
    found = support_files(root / "tests" / "test_code.py", root)
    assert {path.name for path in found} == {"test_code.py", "one.py", "two.py"}


@pytest.mark.parametrize(
    ("file", "text", "again"),
    [
        ("code.py", "a = 1\nb = 2\nc = 1\n", True),
        ("tests/test_code.py", "from support import one\n", True),
        ("tests/support/two.py", "y = 1\n", True),
        ("tests/support/three.py", "y = 1\n", False),
        ("other.py", "", False),
    ],
)
def test_a_result_is_kept_until_what_decides_it_changes(
    root: Path, file: str, text: str, again: bool
) -> None:
    kept = root / "cache" / "results.json"
    results = Results(kept, root)
    outcome = Outcome("killed", "tests/test_code.py::test_x", 1.5)
    results.put(results.key(mutation()), outcome)
    later = Results(kept, root)
    assert later.get(later.key(mutation())) == outcome
    assert later.get(later.key(mutation(new="a = 3"))) is None
    (root / file).write_text(text)
    assert later.get(later.key(mutation())) == (None if again else outcome)


@pytest.mark.parametrize(("count", "says"), [(1, "1 mutation, "), (2, "2 mutations, ")])
def test_summary_has_a_singular(count: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    some = [mutation(name=f"a: {number}") for number in range(count)]
    assert report(some, {one.name: Outcome("killed", "", 1.0) for one in some}, count) == 0
    out = capsys.readouterr().out
    assert out == f"\n{says}{count} tried now: {count} killed, 0 listed\n"


def test_results_are_outside_of_the_tree() -> None:
    from tools.mutants.results import default_file

    assert ROOT not in default_file().parents
