"""The benchmark of the balance between workers: what it does to servers, and its tables.

Rules of this file: few workers, short samples, and no speed is judged. Counts are, where they do
not depend on how busy the machine is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BESIDE, ROOT, await_ends, built, python

from fastlisten.config import loads

pytestmark = BESIDE

BALANCE = ("-m", "benchmarks.balance", "--quick", "--workers", "2", "--rounds", "1")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def measured(*words: str) -> dict[str, Any]:
    """Run the benchmark; return its samples by scenario and candidate, of one round."""
    built()
    found = json.loads(python(*BALANCE, "--json", *words))
    return {
        scenario: {name: samples[0] for name, samples in candidates.items()}
        for scenario, candidates in found["samples"].items()
    }


@pytest.mark.parametrize(
    "candidate", ["fastlisten", "our core, shared socket", "uvloop, reuse-port"]
)
def test_scenarios_are_measured(candidate: str) -> None:
    found = measured("--candidates", candidate, "--only", "idle,held,storm,steady")
    assert set(found) == {"idle", "held", "storm", "steady"}
    assert 1 <= found["held"][candidate]["arrived"] <= 2
    assert 1 <= found["held"][candidate]["burst"] <= 2
    for name in ("storm", "steady"):
        sample = found[name][candidate]
        assert 1 <= sample["share"] <= 2
        assert sample["cpu"] > 0
        assert sample["wake-ups"] > 0
    # 250 in half a second, and the first one at once.
    assert found["steady"][candidate]["rate"] <= 505


def test_clients_of_a_stopped_worker_are_counted() -> None:
    names = ("fastlisten", "fastlisten, reuse-port")
    found = measured("--candidates", ";".join(names), "--only", "stop")["stop"]
    assert list(found) == [*names]
    for name in names:
        assert 0 < found[name]["clients"] <= 251
    # The kernel gives the stopped worker its half of the clients that come afterwards.
    assert 0 < found["fastlisten, reuse-port"]["not greeted"] < 200


def test_waiting_clients_get_places_one_after_the_other() -> None:
    found = measured("--only", "ring")
    assert list(found) == ["ring"]
    assert list(found["ring"]) == ["fastlisten"]
    assert found["ring"]["fastlisten"]["took"] > 0


def test_more_places_than_the_limit_is_an_error() -> None:
    built()
    from benchmarks.balance import CANDIDATES
    from benchmarks.balance_scenarios import Plan, ring
    from benchmarks.process import MeasurementError
    from benchmarks.worker_group import WorkerGroup

    with (
        WorkerGroup(CANDIDATES["our core, shared socket"], 2) as group,
        pytest.raises(MeasurementError, match="more clients were served"),
    ):
        ring(group, Plan(ring=5, seconds=0.1))


def test_configuration_is_what_was_asked_for(tmp_path: Path) -> None:
    from benchmarks.candidates.workers_fastlisten import configuration

    config = loads(
        configuration(7, tmp_path, lazy=True, limit=8, wait=True, reuse_port=True, backlog=100)
    )
    (listener,) = config.listeners
    assert config.workers == 7
    assert listener["max-connections"] == 8
    assert listener["limit-action"] == "wait"
    assert listener["socket.reuse-port"] is True
    assert listener["socket.backlog"] == 100
    assert listener["handler"].endswith(":Lazy")


def sample(value: float) -> dict[str, float]:
    """Return a sample that has every figure."""
    keys = ("arrived", "burst", "share", "cpu", "wake-ups", "rate", "clients", "longest")
    return dict.fromkeys((*keys, "not greeted", "parent wake-ups"), value)


def test_tables_have_medians_and_ratios_of_pairs() -> None:
    from dataclasses import asdict

    from benchmarks.balance_report import markdown
    from benchmarks.balance_scenarios import SCENARIOS, Plan

    ours, theirs = [sample(2), sample(4), sample(3)], [sample(3), sample(6), sample(4.5)]
    shown = markdown(
        {
            "workers": 4,
            "rounds": 3,
            "plan": asdict(Plan(arriving=2000, steady_rate=700)),
            "busy_before": 0.25,
            "machine": {"kernel": "Linux"},
            "samples": {name: {"fastlisten": ours, "theirs": theirs} for name in SCENARIOS},
        }
    )
    assert shown.startswith("With 4 workers:\n")
    assert "| | fastlisten | theirs |\n|---|---|---|\n" in shown
    assert "| 2,000 that stay, 200 a second | 3.00 (2.50 to 3.50) | 4.50" in shown
    assert "| a storm | 3.0 µs | 4.5 µs, × 1.50 (1.50 to 1.50) |" in shown
    assert ", 700 clients come a second; all rounds together:" in shown
    assert "| clients without a greeting within 1 s | 9 of 9 | 13 of 13 |" in shown
    assert "place given back" not in shown  # not measured
    assert "Others used 25.0% of the machine" in shown
    table = [line.count("|") for line in shown.splitlines() if line.startswith("|")]
    assert set(table) == {4}


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "1"],
        ["--workers", "86"],
        ["--rounds", "0"],
        ["--only", "strom"],
        ["--candidates", "nginx"],
    ],
)
def test_wrong_command_line_is_rejected(words: list[str]) -> None:
    from benchmarks.balance import main

    with pytest.raises(SystemExit) as status:
        main(words)
    assert status.value.code == 2


@pytest.mark.parametrize("module", ["workers_fastlisten", "workers_shared"])
@pytest.mark.parametrize("how", ["its input ends", "it is terminated", "it is killed"])
def test_workers_end_with_the_candidate(module: str, how: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.candidates.{module}", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as candidate:
        assert candidate.stdin is not None
        assert candidate.stdout is not None
        _, parent, _ = candidate.stdout.readline().split()
        children = Path(f"/proc/{int(parent)}/task/{int(parent)}/children").read_text()
        pids = [int(parent), *map(int, children.split())]
        assert len(pids) == 3
        if how == "its input ends":
            candidate.stdin.close()
        elif how == "it is terminated":
            candidate.terminate()
        else:
            os.kill(candidate.pid, signal.SIGKILL)
        status = candidate.wait(60)
        assert status == {"its input ends": 0, "it is terminated": 143}.get(how, -signal.SIGKILL)
        # A zombie of ours has ended too.
        await_ends([pid for pid in pids if pid != candidate.pid])
