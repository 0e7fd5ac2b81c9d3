"""Reloads of several workers while another reload, or a restart, is under way.

Rules of this file: a reload goes on for as long as a handler starts, which a file decides.
"""

from __future__ import annotations

import signal
from pathlib import Path

from support.attempts import attempts
from support.kernel import ended
from support.waiting import PATIENCE, until
from support.worker_reloads import (
    append,
    ask,
    background,
    head,
    listener,
    reloads,
    status,
)
from support.workers import Workers, workers


def requests(server: Workers) -> int:
    return server.err.count("reload requested by")


def test_reloads_at_the_same_time(tmp_path: Path) -> None:
    """Those that come during a reload wait, read the file once, and get the same answer."""
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids = two.pids
        (tmp_path / "slow").touch()
        append(two, listener(tmp_path, "first"))
        with background(two, "reload") as first:
            until(lambda: (tmp_path / "first.sock").exists(), "the first reload")
            append(two, listener(tmp_path, "second"))
            with background(two, "reload") as second, background(two, "reload") as third:
                until(lambda: requests(two) == 3, "the others")
                (tmp_path / "slow").unlink()
                assert first.communicate(timeout=PATIENCE) == ('listener "first": added\n', "")
                for one in (second, third):
                    assert one.communicate(timeout=PATIENCE) == ('listener "second": added\n', "")
        assert reloads(two) == 2
        assert two.pids == pids
        assert status(two).keys() == {"it", "first", "second"}
        assert two.end() == 0


def test_restart_waits_for_a_reload(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        old = two.pids
        (tmp_path / "slow").touch()
        append(two, listener(tmp_path, "more"))
        with background(two, "reload") as reload:
            until(lambda: (tmp_path / "more.sock").exists(), "the reload")
            with background(two, "restart") as restart:
                until(lambda: "restart requested by" in two.err, "the restart")
                assert two.pids == old
                (tmp_path / "slow").unlink()
                assert reload.communicate(timeout=PATIENCE) == ('listener "more": added\n', "")
                assert restart.communicate(timeout=PATIENCE)[1] == ""
                assert restart.returncode == 0
        until(lambda: all(map(ended, old)), "the end of the old workers")
        assert int(ask(two, "more")) in two.pids
        assert two.end() == 0


def test_reload_waits_for_a_restart(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two, attempts(two) as client:
        old = two.pids
        (tmp_path / "slow").touch()
        with background(two, "restart") as restart:
            until(lambda: len(two.pids) == 3, "a successor")
            append(two, listener(tmp_path, "more"))
            with background(two, "reload") as reload:
                until(lambda: requests(two) == 1, "the reload")
                assert not (tmp_path / "more.sock").exists()
                (tmp_path / "slow").unlink()
                assert restart.wait(PATIENCE) == 0
                assert reload.communicate(timeout=PATIENCE) == ('listener "more": added\n', "")
        until(lambda: all(map(ended, old)), "the end of the old workers")
        new = two.pids
        assert len(new) == 2
        assert int(ask(two, "more")) in new
        client.more(5)
        assert client.failed == []
        client.end()
        assert two.end() == 0


def test_reload_during_the_start_is_carried_out_afterwards(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    with workers(tmp_path, 2, head=head(tmp_path), serve=False) as two:
        until(lambda: (tmp_path / "starts").exists(), "handlers that start")
        append(two, listener(tmp_path, "more"))
        two.signal(signal.SIGHUP)
        until(lambda: "reloading when the start is complete" in two.err, "the signal")
        (tmp_path / "slow").unlink()
        until(lambda: reloads(two), "the reload")
        two.serve(2)
        until(lambda: len(two.pids) == 2, "two workers")
        assert int(ask(two, "more")) in two.pids
        assert two.end() == 0
