"""The benchmarks' own arithmetic, and that a run of the real programs counts what happened.

Nothing here looks at a speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not beside the tests"
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def sample(value: float) -> dict[str, Any]:
    """Return a sample as the report reads it."""
    return {
        "value": value,
        "user": value / 2,
        "rate": 1000.0,
        "busy": 0.9,
        "disturbed": False,
        "detail": {},
    }


def test_ratios_are_taken_within_a_round() -> None:
    from benchmarks.figures import pair_ratios, spread

    # The second round ran on a machine half as fast: the ratio is that of the others.
    ratios = pair_ratios([sample(40), sample(80), sample(44)], [sample(20), sample(40), sample(22)])
    assert ratios == [2.0, 2.0, 2.0]
    assert spread(ratios).low == spread(ratios).high == 2.0


def test_unequal_rounds_are_no_pairs() -> None:
    from benchmarks.figures import pair_ratios

    with pytest.raises(ValueError, match="shorter"):
        pair_ratios([sample(1), sample(2)], [sample(1)])


def test_memory_that_did_not_grow_divides_nothing() -> None:
    from benchmarks.figures import pair_ratios

    assert pair_ratios([sample(1280.0)], [sample(0.0)])[0] > 1e6


def test_spread_of_five_is_median_and_quartiles() -> None:
    from benchmarks.figures import Spread, spread

    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("low", "median", "high", "words"),
    [
        (1.2, 1.3, 1.4, "reached"),
        (1.15, 1.15, 1.15, "reached"),
        (1.0, 1.3, 1.4, "within spread"),
        (1.0, 1.1, 1.2, "within spread"),
        (0.9, 1.0, 1.1, "missed"),
    ],
)
def test_verdict_on_a_ratio(low: float, median: float, high: float, words: str) -> None:
    from benchmarks.figures import Spread, verdict
    from benchmarks.rows import Bound

    some = Spread(1.0, 1.0, 1.0)
    assert verdict(Bound(ratio=1.15), some, Spread(median, low, high)) == words


def test_verdict_needs_every_part_of_a_bound() -> None:
    from benchmarks.figures import Spread, verdict
    from benchmarks.rows import Bound

    bound = Bound(value=10, ratio=0.5)
    small, large, around = Spread(8, 7, 9), Spread(20, 19, 21), Spread(9, 8, 11)
    near, far = Spread(0.6, 0.55, 0.7), Spread(0.3, 0.2, 0.4)
    assert verdict(bound, small, near) == "reached"
    assert verdict(bound, small, far) == "missed"
    assert verdict(bound, large, near) == "missed"
    assert verdict(bound, around, near) == "within spread"
    assert verdict(bound, around, far) == "missed"
    assert verdict(Bound(value=0), Spread(0, 0, 0), far) == "reached"


def test_rows_name_workloads_and_candidates_that_exist() -> None:
    from benchmarks.rows import ROWS
    from benchmarks.workloads import CANDIDATES, WORKLOADS

    workloads = {workload.key: workload for workload in WORKLOADS}
    assert len(workloads) == len(WORKLOADS)
    for workload in WORKLOADS:
        assert set(workload.candidates) <= set(CANDIDATES)
    for row in ROWS:
        assert {row.ours, row.against} <= set(workloads[row.workload].candidates), row.title


def test_the_table_shows_rows_and_what_was_left_out() -> None:
    from benchmarks import report

    results = {
        "machine": {"kernel": "Linux"},
        "plan": {"seconds": 2.0, "warm_up": 0.5, "held": 10},
        "rounds": 2,
        "quick": True,
        "busy_before": 0.0,
        "left_out": ["asyncio in accept: it was shy"],
        "workloads": {
            "accept": {
                "uvloop": [sample(46), sample(48)],
                "fastlisten": [sample(23), sample(24)],
                "uvloop again": [sample(46), sample(48)],
            }
        },
    }
    for shown in (report.text(results), report.markdown(results)):
        assert "2.00 (2.00 to 2.00)" in shown
        assert "uvloop / 1.15: reached" in shown
        assert "not measured" in shown  # the lazy row
        assert "it was shy" in shown
        assert "too short for conclusions" in shown
    lines = report.markdown(results).splitlines()
    table = [line.count("|") for line in lines if line.startswith("|")]
    assert table[:4] == [9, 9, 9, 9]


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    from benchmarks import report

    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_between_markers(document, "new")
    report.write_between_markers(document, "newer")
    assert document.read_text() == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"
    document.write_text("no markers\n")
    with pytest.raises(ValueError, match="no place for the table"):
        report.write_between_markers(document, "new")
    assert document.read_text() == "no markers\n"


def test_the_document_has_a_place_for_the_table() -> None:
    from benchmarks import report

    document = (ROOT / "docs" / "performance.md").read_text()
    assert document.count(report.BEGIN) == document.count(report.END) == 1


@pytest.fixture(scope="module")
def programs() -> tuple[str, str]:
    """Return the C server and the load generator, compiled."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    command = (
        "from benchmarks.build import *; build(); import json; "
        "print(json.dumps([str(SERVER), str(LOADGEN)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, check=True, capture_output=True
    )
    server, loadgen = json.loads(found.stdout)
    return server, loadgen


@pytest.mark.parametrize(
    ("words", "operations", "received"),
    [
        (["silent", "--count", "300", "--in-flight", "20"], 300, 300 * 7),
        (["accept", "--count", "200", "--say", "NOOP"], 200, 200 * (7 + 6)),
        (
            ["echo", "--greeting", "--connections", "10", "--count", "100", "--size", "100000"],
            100,
            100 * 100_000,
        ),
    ],
)
def test_the_load_generator_counts_what_the_server_did(
    programs: tuple[str, str], words: list[str], operations: int, received: int
) -> None:
    server = subprocess.Popen(
        [programs[0], "--greeting", "hello"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with server:
        assert server.stdout is not None
        port = server.stdout.readline().decode().strip()
        result = subprocess.run(
            [programs[1], *words, "--port", port, "--sources", "3", "--duration", "20"],
            capture_output=True,
            check=True,
            timeout=60,
        )
    assert server.returncode == 0
    done = json.loads(result.stdout)
    assert done["event"] == "done"
    assert (done["operations"], done["bytes"]) == (operations, received)
    assert not any(done["errors"].values())


def test_held_connections_answer_and_their_loss_is_seen(programs: tuple[str, str]) -> None:
    server = subprocess.Popen([programs[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    port = server.stdout.readline().decode().strip()
    command = [programs[1], "hold", "--port", port, "--connections", "50", "--duration", "20"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        assert json.loads(load.stdout.readline())["open"] == 50
        load.stdin.write(b"ping\n")
        load.stdin.flush()
        assert json.loads(load.stdout.readline())["operations"] == 50
        server.stdin.close()
        assert server.wait(10) == 0
        server.stdout.close()
        load.stdin.write(b"ping\n")
        load.stdin.flush()
        assert json.loads(load.stdout.readline())["operations"] == 0
        load.stdin.close()
        done = json.loads(load.stdout.readline())
    assert done["open"] == 0


def test_nobody_listening_is_an_error_and_not_an_operation(programs: tuple[str, str]) -> None:
    # Port 1 of loopback: nobody listens there, and no test could take it.
    command = [programs[1], "silent", "--port", "1", "--count", "5", "--duration", "5"]
    result = subprocess.run(command, capture_output=True, check=True, timeout=30)
    done = json.loads(result.stdout)
    assert done["operations"] == 0
    assert done["errors"]["refused"] == 5


@pytest.mark.parametrize(
    "words", [["--only", "acept"], ["--candidates", "nginx"], ["--rounds", "0"]]
)
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 2
