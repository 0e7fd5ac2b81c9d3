"""The ends of workers and of the supervisor: crashes, signals, hanging processes.

Rules of this file: processes are killed and stopped for real; what they held is counted afterwards.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from support.kernel import ended
from support.waiting import until
from support.workers import WHO, Workers, line, patched, stopped, workers

from fastlisten.runtime.supervisor.back_off import BackOff
from fastlisten.runtime.supervisor.worker_process import Ended

#: Kills workers that do not end 0.2 s after the timeout.
IMPATIENT = "import fastlisten.runtime.supervisor.workers as workers\nworkers.KILL_AFTER = 0.2\n"


def refused(two: Workers) -> bool:
    """Tell whether nobody listens any more."""
    try:
        two.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def has_logged_stops(two: Workers, count: int) -> bool:
    return two.err.count("SIGTERM: ") == count


def test_crashed_worker_is_replaced_and_its_places_are_free(tmp_path: Path) -> None:
    with workers(tmp_path, 2, WHO + "max-connections = 2\n") as two:
        first, second = two.pids
        with two.served_by(first) as one, two.served_by(first):
            with two.connect() as refused:
                assert line(refused) == b"refused: limit\n"
            one.sendall(b"crash\n")
            two.serve(3)
        until(lambda: ended(first), "the end")
        replaced = next(pid for pid in two.pids if pid != second)
        with two.served_by(replaced), two.served_by(second):
            pass
        assert two.end() == 0
    assert f"worker 0 (pid {first}) has ended: SIGABRT" in two.err


def test_exit_code_of_a_crash_is_logged(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as two:
        first = two.pids[0]
        (tmp_path / "exit").write_text("7")
        os.kill(first, signal.SIGKILL)
        until(lambda: "has ended: exit code 7" in two.err, "the second crash")
        (tmp_path / "exit").unlink()
        two.serve(3)
        assert two.end() == 0
    assert f"worker 0 (pid {first}) has ended: SIGKILL" in two.err
    assert "worker 0 is started again in 0.5 s" in two.err


def test_worker_that_cannot_start_is_not_started_again(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as two:
        first, second = two.pids
        (tmp_path / "broken").touch()
        os.kill(first, signal.SIGKILL)
        text = "worker 0 cannot start (exit code 3) and is not started again; 1 of 2 workers are"
        until(lambda: text in two.err, "the end of the attempts")
        assert two.pids == [second]
        assert two.ask() == second
        os.kill(second, signal.SIGKILL)
        assert two.program.ended() == 1
    assert "0 of 2 workers are left" in two.err


def test_supervisor_that_is_killed_takes_its_workers_along(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head='shutdown-timeout = "1h"\n') as two:
        pids = two.pids
        client = two.served_by(pids[0])
        client.sendall(b"begin")
        assert client.recv(5) == b"begin"
        two.signal(signal.SIGKILL)
        until(lambda: ended(pids[1]), "the end of the idle worker")
        # The busy one finishes what it has begun.
        assert not ended(pids[0])
        client.sendall(b"end")
        assert client.recv(3) == b"end"
        assert line(client) == b"farewell: shutdown\n"
        until(lambda: ended(pids[0]), "the end of the busy worker")
        client.close()
    assert two.err.count("the supervisor has ended: draining") == 2


def test_told_worker_drains_and_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head='shutdown-timeout = "1h"\n') as two:
        first, second = two.pids
        with two.served_by(first) as client:
            client.sendall(b"begin")
            assert client.recv(5) == b"begin"
            os.kill(first, signal.SIGTERM)
            two.serve(3)  # the successor serves while the old one is busy
            assert set(two.pids) > {first, second}
            assert two.ask() != first
            client.sendall(b"end")
            assert client.recv(3) == b"end"
            until(lambda: ended(first), "the end of the old worker")
        assert two.end() == 0
    assert f"worker 0 (pid {first}) has ended: exit code 0" in two.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_drains_all(tmp_path: Path, number: signal.Signals) -> None:
    with workers(tmp_path, 2, head='shutdown-timeout = "1h"\n') as two:
        first, second = two.pids
        busy, idle = two.served_by(first), two.served_by(second)
        busy.sendall(b"begin")
        assert busy.recv(5) == b"begin"
        # As a terminal or systemd does it: to all processes.
        for pid in (two.pid, second):
            os.kill(pid, number)
        assert line(idle) == b"farewell: shutdown\n"
        until(lambda: ended(second), "the end of the idle worker")
        assert not ended(first)
        until(lambda: refused(two), "closed sockets")
        # Also when it comes after the supervisor's message: it is the same request.
        os.kill(first, number)
        busy.sendall(b"end")
        assert busy.recv(3) == b"end"
        assert two.program.ended() == 0
        busy.close()
        idle.close()
    assert two.serving == 2


def test_second_stop_closes_everything(tmp_path: Path) -> None:
    head = 'shutdown-timeout = "1h"\n'
    with workers(tmp_path, 2, head=head) as two, two.served_by(two.pids[0]) as busy:
        busy.sendall(b"begin")
        assert busy.recv(5) == b"begin"
        two.signal(signal.SIGTERM)
        until(lambda: len(two.pids) == 1, "the end of the idle worker")
        two.signal(signal.SIGTERM)
        assert two.program.ended() == 0
    assert "SIGTERM: closing at once" in two.err


def test_hanging_worker_is_killed_after_the_timeout(tmp_path: Path) -> None:
    environ = patched(tmp_path, IMPATIENT)
    with workers(tmp_path, 2, head='shutdown-timeout = "0s"\n', environ=environ) as two:
        first = two.pids[0]
        with stopped(first):
            assert two.end() == 0
    assert f"worker 0 (pid {first}) has not ended in time: killed" in two.err
    assert f"worker 0 (pid {first}) has ended: SIGKILL" in two.err


def test_third_stop_kills(tmp_path: Path) -> None:
    head = 'shutdown-timeout = "1h"\n'
    with workers(tmp_path, 2, head=head) as two, stopped(two.pids[0]):
        for count in (1, 2, 3):
            two.signal(signal.SIGTERM)
            until(partial(has_logged_stops, two, count))
        assert two.program.ended() == 0
    assert "SIGTERM: killing" in two.err


def test_back_off_grows_and_forgets() -> None:
    waits = BackOff()
    assert [waits.crashed(0) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert waits.crashed(served=59) == 30
    assert [waits.crashed(served=60), waits.crashed(0)] == [0, 0.5]


def test_cause_of_an_end() -> None:
    assert str(Ended.of(signal.SIGKILL)) == "SIGKILL"
    assert str(Ended.of(40)) == "signal 40"
    assert str(Ended.of(3 << 8)) == "exit code 3"
