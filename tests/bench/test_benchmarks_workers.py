"""The benchmarks of servers with several workers: what is counted, and what is left behind.

Rules of this file: few workers and few connections, and no speed is judged.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BESIDE, ROOT, await_ends, built, load, python

pytestmark = BESIDE

HOLD = ("-m", "benchmarks.hold", "--workers", "2")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("words", [[], ["--candidate", "fastlisten lazy"]])
def test_every_connection_held_by_workers_answers(words: list[str]) -> None:
    built()
    found = json.loads(python(*HOLD, "--connections", "1001", "--json", *words))
    assert found["answered"] == found["connections"] == sum(found["counts"]) == 1001
    assert len(found["counts"]) == 2
    assert found["resting"]["user"] > 0
    assert found["resting"]["parent"] > 0
    # This program's child, the supervisor, two workers, a load generator.
    assert len(found["pids"]) == 5
    await_ends(found["pids"])


def test_workers_use_all_their_descriptors() -> None:
    built()
    # A quarter is kept for handlers, and some are for other things: 500 connections or so are left.
    words = ["--descriptors", "400", "--connections", "460", "--json"]
    found = json.loads(python(*HOLD, *words))
    assert found["answered"] == 460


def test_descriptors_of_workers_are_limited() -> None:
    from benchmarks.hold_workers import WORKER_CANDIDATES
    from benchmarks.worker_group import WorkerGroup

    (module,) = WORKER_CANDIDATES["fastlisten"]
    command = [sys.executable, "-m", module, "--descriptors", "400"]
    with WorkerGroup(command, 2) as group:
        for pid in group.workers:
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (400, 400)


@pytest.mark.parametrize(
    ("how", "status"),
    [("a worker is killed", 1), ("it is terminated", 143), ("it is killed", -signal.SIGKILL)],
)
def test_failed_run_leaves_no_worker(tmp_path: Path, how: str, status: int) -> None:
    built()
    command = [sys.executable, *HOLD, "--connections", "4000"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        servers = [int(word) for word in run.stderr.readline().removeprefix("servers:").split()]
        assert len(servers) == 3
        if how == "a worker is killed":
            os.kill(servers[1], signal.SIGKILL)
        elif how == "it is terminated":
            run.terminate()
        else:
            run.kill()
        said = run.stderr.read()
    assert run.returncode == status
    assert "Traceback" not in said
    await_ends(servers)
    if how != "it is killed":
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "1"],
        ["--workers", "2", "--processes", "2"],
        ["--workers", "2", "--tls", "p-256"],
        ["--workers", "2", "--candidate", "C epoll"],
        ["--workers", "2", "--candidate", "uvloop", "--descriptors", "500"],
        ["--workers", "2", "--connections", "1000000000"],
        ["--workers", "2", "--connections", "1001", "--descriptors", "500"],
        ["--descriptors", "500"],
    ],
)
def test_impossible_run_is_rejected(words: list[str]) -> None:
    from benchmarks.hold import main

    with pytest.raises(SystemExit) as status:
        main(words)
    assert status.value.code == 2


@pytest.fixture
def group() -> Iterator[Any]:
    """Yield a server of two workers that are not balanced."""
    built()
    from benchmarks.worker_group import WorkerGroup

    with WorkerGroup([sys.executable, "-m", "benchmarks.candidates.workers_shared"], 2) as group:
        yield group


def test_greetings_tell_workers_apart(group: Any) -> None:
    loadgen = built()["loadgen"]
    done = load(loadgen, group.port, "silent", "--tally", "--count", "60")
    counts = group.counts(done["tally"])
    assert sum(counts) == done["operations"] == 60
    with group.stopped(group.workers[0]):
        done = load(loadgen, group.port, "silent", "--tally", "--count", "30")
    assert group.counts(done["tally"]) == [0, 30]


def test_strangers_are_not_counted_as_workers(group: Any) -> None:
    from benchmarks.process import MeasurementError

    with pytest.raises(MeasurementError, match="processes \\['1'\\] have greeted"):
        group.counts({str(group.workers[0]): 3, "1": 2})


def test_share_is_that_of_the_worker_with_the_most() -> None:
    from benchmarks.worker_group import share

    assert share([5, 5, 5, 5]) == 1.0
    assert share([10, 0]) == 2.0


def test_connections_begin_at_a_rate(group: Any) -> None:
    loadgen = built()["loadgen"]
    done = load(loadgen, group.port, "silent", "--rate", "200", "--count", "41")
    assert done["operations"] == 41
    assert done["seconds"] >= 40 / 200
    assert "tally" not in done


def test_late_answers_are_counted(group: Any) -> None:
    loadgen = built()["loadgen"]
    words = ("silent", "--count", "20")
    assert load(loadgen, group.port, *words, "--late", "0.000001")["late"] == 20
    assert "late" not in load(loadgen, group.port, *words, "--late", "600")
