"""The benchmarks' arithmetic, their table and their command line.

Their programs are run in test_benchmarks_programs.py. No speed is judged here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

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


def test_ratios_are_computed_within_a_round() -> None:
    from benchmarks.figures import pair_ratios, spread

    # In the second round the machine was half as fast: the ratio is that of the others.
    ratios = pair_ratios([sample(40), sample(80), sample(44)], [sample(20), sample(40), sample(22)])
    assert ratios == [2.0, 2.0, 2.0]
    assert spread(ratios).low == spread(ratios).high == 2.0


def test_unequal_numbers_of_rounds_are_an_error() -> None:
    from benchmarks.figures import pair_ratios

    with pytest.raises(ValueError, match="shorter"):
        pair_ratios([sample(1), sample(2)], [sample(1)])


def test_ratio_to_memory_that_did_not_grow() -> None:
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


def test_rows_name_existing_workloads_and_candidates() -> None:
    from benchmarks.rows import ROWS
    from benchmarks.workloads import CANDIDATES, WORKLOADS

    workloads = {workload.key: workload for workload in WORKLOADS}
    assert len(workloads) == len(WORKLOADS)
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert {row.workload for row in ROWS} == set(workloads)
    for workload in WORKLOADS:
        assert set(workload.candidates) <= set(CANDIDATES)
    for row in ROWS:
        compared = {row.ours, row.against or row.ours}
        assert compared <= set(workloads[row.workload].candidates), row.title


def test_table_shows_rows_and_missing_measurements() -> None:
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


def test_table_shows_lags_calls_and_tls_parameters() -> None:
    from benchmarks import report

    def detailed(value: float, **detail: Any) -> dict[str, Any]:
        return {**sample(value), "detail": detail}

    results = {
        "machine": {},
        "plan": {"seconds": 2.0, "warm_up": 0.5, "held": 10},
        "rounds": 2,
        "rows": ["lag", "options", "tls-echo-64", "memory"],
        "quick": False,
        "busy_before": 0.0,
        "left_out": [],
        "workloads": {
            "lag": {
                "uvloop": [detailed(4, p50=0.5, max=9), detailed(6, p50=0.7, max=20)],
                "fastlisten": [detailed(2, p50=0.1, max=3), detailed(2, p50=0.1, max=4)],
            },
            "options": {
                "uvloop": [detailed(1, calls={"accept4": 1, "setsockopt": 1})],
                "fastlisten": [detailed(0, calls={"accept4": 1.005})],
            },
            "tls-echo-64": {
                "uvloop": [detailed(20, **{"tls": "TLSv1.3", "tls library": "OpenSSL 3"})],
                "fastlisten": [detailed(10, **{"tls": "TLSv1.2", "tls library": "OpenSSL 3"})],
            },
            "memory": {"uvloop": [sample(1000)], "fastlisten lazy": [sample(0)]},
        },
    }
    for shown in (report.text(results), report.markdown(results)):
        assert "0.60 / 5.0 / 20.0 ms" in shown
        assert "0.10 / 2.0 / 4.0 ms" in shown
        assert "accept4 1, setsockopt 1" in shown
        assert "0: reached" in shown
        assert "Negotiated in tls-echo-64: TLSv1.3, no session resumed (uvloop; " in shown
        assert "Negotiated in tls-echo-64: TLSv1.2, no session resumed (fastlisten; " in shown
        assert "idle connection, eager" in shown
        assert "idle connection, lazy" not in shown


def test_system_calls_are_counted_once_and_per_connection() -> None:
    from benchmarks.syscalls import parse

    trace = """
101 accept4(5, NULL, NULL, SOCK_CLOEXEC <unfinished ...>
102 setsockopt(7, SOL_TCP, TCP_NODELAY, [1], 4) = 0
101 <... accept4 resumed>) = 9
accept4(5, 0x7ffe, [16], SOCK_CLOEXEC|SOCK_NONBLOCK) = 8
101 getsockopt(9, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
--- SIGCHLD {si_signo=SIGCHLD} ---
"""
    calls = parse(trace, 2)
    assert calls.all == {"accept4": 1.0, "getsockopt": 0.5, "setsockopt": 0.5}
    assert calls.options == 1.0


def test_every_nth_protocol_is_slow_but_answers() -> None:
    from unittest.mock import Mock

    from benchmarks.candidates.protocol import Echo, greeting_echo, slow_every

    kind = greeting_echo(b"hello")
    factory = slow_every(3, 0.0001, kind)
    made = [factory() for _ in range(6)]
    assert [type(one) is kind for one in made] == [True, True, False, True, True, False]
    assert all(isinstance(one, Echo) for one in made)
    transport = Mock()
    made[2].connection_made(transport)
    made[2].data_received(b"data")
    assert [call.args for call in transport.write.call_args_list] == [(b"hello",), (b"data",)]


def test_rows_select_workloads_and_candidates() -> None:
    from benchmarks import run
    from benchmarks.workloads import WORKLOADS

    def chosen(*words: str) -> dict[str, tuple[str, ...]]:
        given = run._arguments(words)
        return {found.key: found.candidates for found in run._workloads(given)}

    assert chosen("--rows", "accept-lazy, options") == {
        "accept": ("fastlisten lazy", "uvloop", "asyncio", "C epoll"),
        "options": ("fastlisten", "uvloop", "asyncio", "C epoll"),
    }
    assert chosen("--rows", "refusal") == {"refusal": ("fastlisten full", "fastlisten", "uvloop")}
    assert chosen("--only", "accept") == {
        "accept": ("fastlisten", "fastlisten lazy", "uvloop", "asyncio", "C epoll")
    }
    assert chosen("--only", "lag", "--control")["lag"][-1] == "uvloop again"
    assert len(chosen()) == len(WORKLOADS)


def test_only_text_between_the_markers_changes(tmp_path: Path) -> None:
    from benchmarks import report

    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_between_markers(document, "new")
    report.write_between_markers(document, "newer")
    assert document.read_text() == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"
    document.write_text("no markers\n")
    with pytest.raises(ValueError, match="lacks the markers of the table"):
        report.write_between_markers(document, "new")
    assert document.read_text() == "no markers\n"


def test_document_without_markers_is_rejected_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import run

    monkeypatch.setattr(run, "_collect", lambda *_: pytest.fail("it was measured"))
    assert run.main(["--quick", "--markdown", str(tmp_path / "missing.md")]) == 1


@pytest.mark.parametrize("name", ["performance.md", "performance-smtp.md"])
def test_documents_have_markers_for_the_table(name: str) -> None:
    from benchmarks import report

    document = (ROOT / "docs" / name).read_text()
    assert document.count(report.BEGIN) == document.count(report.END) == 1


@pytest.mark.parametrize(
    "words",
    [["--only", "acept"], ["--rows", "acept"], ["--candidates", "nginx"], ["--rounds", "0"]],
)
def test_invalid_command_line_is_rejected(words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 2
