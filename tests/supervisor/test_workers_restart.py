"""All workers replaced while clients come: by `fastlisten restart`, and one by one with SIGTERM.

Rules of this file: the program, the command and the clients are real. Clients connect again and
again in a thread of the test, and every attempt that is not served counts as failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

from support.attempts import attempts
from support.kernel import ended
from support.program import program, run
from support.waiting import until
from support.workers import WHO, patched, workers


def head(directory: Path) -> str:
    return f'shutdown-timeout = "1h"\ncontrol-socket = "{directory / "control"}"\n'


def restart(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run `fastlisten restart`."""
    return run("restart", "--config", directory / "mail.toml", TOLD=str(directory))


def test_restart_turns_no_client_away(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two, attempts(two) as client:
        old = two.pids
        done = restart(tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 workers replaced\n", "")
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        new = two.pids
        assert len(new) == 2
        client.more(10)
        assert client.failed == []
        assert client.pids <= {*old, *new}
        # Each of them has imported the handler for itself.
        imported = (tmp_path / "imports").read_text().split()[::2]
        assert {str(pid) for pid in (*old, *new)} < set(imported)
        client.end()
        assert two.end() == 0


def test_old_worker_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        first = two.pids[0]
        with two.served_by(first) as busy:
            busy.sendall(b"begin")
            assert busy.recv(5) == b"begin"
            assert restart(tmp_path).returncode == 0
            assert not ended(first)
            busy.sendall(b"end")
            assert busy.recv(3) == b"end"
            until(lambda: ended(first), "the end of the old worker")
        assert two.end() == 0


def test_restart_that_fails_leaves_the_old_workers(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two, attempts(two) as client:
        old = two.pids
        (tmp_path / "broken").touch()
        done = restart(tmp_path)
        assert done.returncode == 1
        assert "a new worker could not start" in done.stderr
        assert two.pids == old
        client.more(10)
        assert client.failed == []
        # It can be tried again.
        (tmp_path / "broken").unlink()
        assert restart(tmp_path).returncode == 0
        client.end()
        assert two.end() == 0
    assert "worker 0: its successor could not start" in two.err


def test_restart_brings_back_a_worker_that_could_not_start(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        (tmp_path / "broken").touch()
        os.kill(two.pids[0], signal.SIGKILL)
        until(lambda: "worker 0 cannot start" in two.err, "the end of the attempts")
        (tmp_path / "broken").unlink()
        assert restart(tmp_path).returncode == 0
        two.serve(4)
        until(lambda: len(two.pids) == 2, "two workers")
        assert two.end() == 0


def test_crash_during_a_restart(tmp_path: Path) -> None:
    """The old worker dies while its successor starts; the restart goes on."""
    slow = (
        "import os, signal, fastlisten.runtime.supervisor.workers as it\n"
        "spawn = it.Workers.spawn\n"
        "def then_kill(self, slot):\n"
        "    old = slot.process\n"
        "    spawn(self, slot)\n"
        "    if old is not None and slot.number == 0: old.kill()\n"
        "it.Workers.spawn = then_kill\n"
    )
    environ = patched(tmp_path, slow)
    with workers(tmp_path, 2, head=head(tmp_path), environ=environ) as two:
        old = two.pids
        assert restart(tmp_path).returncode == 0
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        until(lambda: len(two.pids) == 2, "two workers")
        assert two.end() == 0
    assert f"worker 0 (pid {old[0]}) has ended: SIGKILL" in two.err


def test_workers_told_one_by_one_turn_no_client_away(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two, attempts(two) as client:
        for count in range(4):
            oldest = two.pids[0]
            os.kill(oldest, signal.SIGTERM)
            two.serve(3 + count)
            until(partial(ended, oldest), "the end")
        client.more(10)
        assert client.failed == []
        client.end()
        assert two.end() == 0


def test_one_process_cannot_be_restarted(tmp_path: Path) -> None:
    environ = {"TOLD": str(tmp_path)}
    with program(tmp_path, head(tmp_path) + WHO, environ=environ) as started:
        done = restart(tmp_path)
        assert done.returncode == 1
        assert "this server is one process" in done.stderr
        assert started.stop() == 0
