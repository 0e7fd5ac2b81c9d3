"""Messages that need a descriptor, to a process that has none left: said, and nobody is killed.

Rules of this file: the kernel's limit of one process is lowered with prlimit(2) to the descriptors
that it has; nothing is injected.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from support.kernel import starved
from support.waiting import until
from support.worker_reloads import append, commanded, descriptors, head, status
from support.workers import WHO, Workers, workers

MORE = WHO.replace("listener.it", "listener.more")

#: So many listeners that a worker's report does not fit into a packet.
MANY = 400


def test_reload_that_a_worker_cannot_be_given_changes_nothing(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids, before = two.pids, descriptors(two)
        append(two, MORE)
        with starved(pids[1]):
            done = commanded(two, "reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert "worker 1: a message is lost: no descriptor is left" in done.stderr
        assert "failed with 1 problem; nothing has changed" in done.stderr
        assert two.pids == pids
        until(lambda: descriptors(two) == before, "the end of what was opened")
        assert commanded(two, "reload").returncode == 0
        assert status(two).keys() == {"it", "more"}
        assert two.pids == pids
        assert two.end() == 0


@contextlib.contextmanager
def many(directory: Path) -> Iterator[Workers]:
    text = "".join(WHO.replace("listener.it", f"listener.it{number}") for number in range(MANY))
    with workers(directory, 2, WHO + text, head=head(directory)) as two:
        yield two


def test_large_report_to_a_supervisor_without_descriptors(tmp_path: Path) -> None:
    with many(tmp_path) as two:
        pids = two.pids
        with starved(two.pid, but=1):  # for the command
            commanded(two, "status")
        assert "a message is lost: no descriptor is left" in two.err
        assert two.pids == pids
        assert two.ask() in pids
        assert two.end() == 0


def test_worker_that_had_too_few_descriptors_to_start_is_started_again(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as two:
        first, second = two.pids
        with starved(two.pid, but=8):  # the next worker inherits the limit
            os.kill(first, signal.SIGKILL)
            until(lambda: two.err.count("has ended") == 2, "one that cannot start")
        two.serve(3)
        assert len(two.pids) == 2
        assert second in two.pids
        assert two.end() == 0
    assert "Too many open files" in two.err
