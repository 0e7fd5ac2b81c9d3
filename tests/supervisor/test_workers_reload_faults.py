"""A reload with several workers while things go wrong, and while clients come.

Rules of this file: workers are really stopped and killed. That a stopped one hangs is said by a
file, which the supervisor reads instead of waiting for five seconds (test_heartbeat.py has these).
"""

from __future__ import annotations

import contextlib
import operator
import os
import signal
from pathlib import Path

from support.attempts import attempts
from support.figures import show
from support.kernel import ended
from support.waiting import PATIENCE, until
from support.worker_reloads import (
    append,
    background,
    commanded,
    descriptors,
    head,
    reloads,
    rewrite,
    signalled,
    status,
)
from support.workers import WHO, Workers, patched, stopped, workers

#: A process in the file `hung` is one that hangs; one in `killed` is killed before it commits.
FAULTS = """
import os, pathlib, signal
import fastlisten.runtime.supervisor.workers as it
told = pathlib.Path(os.environ["TOLD"])
def pid(name):
    path = told / name
    return int(path.read_text()) if path.exists() else 0
look, send = it.HungWorkers.look, it.Workers.send
def look_and_read(self, heartbeats):
    found = look(self, heartbeats)
    if pid("hung") in heartbeats:
        self.hung[pid("hung")] = 0.0
    return found
def kill_and_send(self, key, kind, body, fds=()):
    for process in self._processes.values():
        if process.key == key and kind == "reload-commit" and process.pid == pid("killed"):
            process.kill()
    send(self, key, kind, body, fds)
it.HungWorkers.look, it.Workers.send = look_and_read, kill_and_send
"""

MORE = WHO.replace("listener.it", "listener.more")

SMTP = """
[server.listener.more]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
"""


def reload(server: Workers, text: str = "") -> None:
    """Reload with this at the end of the file; wait for the end of the reload."""
    path = server.directory / "mail.toml"
    path.write_text(path.read_text().partition("# more\n")[0] + "# more\n" + text)
    signalled(server)


def served_by_more(server: Workers) -> set[int]:
    """Return the workers that have imported the handler and have the listener's socket."""
    (line,) = [
        one for one in server.err.splitlines() if 'listener "more": ' in one and " on " in one
    ]
    port = line.partition("127.0.0.1:")[2].partition(";")[0]
    local = f"0100007F:{int(port):04X}"
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    (inode,) = [one.split()[9] for one in table if one.split()[1] == local]
    found = set()
    for pid in server.pids:
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a client's, closed meanwhile
                if os.readlink(one) == f"socket:[{inode}]":
                    found.add(pid)
    return found


def test_stopped_worker_is_replaced(tmp_path: Path) -> None:
    environ = patched(tmp_path, FAULTS)
    with workers(tmp_path, 2, head=head(tmp_path), environ=environ) as two:
        first, second = two.pids
        append(two, MORE)
        with stopped(second), background(two, "reload") as command:
            until(lambda: "reload requested by" in two.err, "the request")
            (tmp_path / "hung").write_text(str(second))
            out, err = command.communicate(timeout=PATIENCE)
            assert (command.returncode, out) == (0, 'listener "more": added\n')
            assert f"(pid {second}) has not answered during the reload: killed and replaced" in err
            until(lambda: ended(second), "the end of the stopped worker")
        two.serve(3)
        until(lambda: len(two.pids) == 2, "two workers")
        assert first in two.pids
        assert served_by_more(two) == set(two.pids)
        assert two.end() == 0
    assert f"(pid {second}) has not answered during the reload: killed" in two.err


def test_worker_killed_between_the_phases_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, 2, environ=patched(tmp_path, FAULTS)) as two:
        first, second = two.pids
        (tmp_path / "killed").write_text(str(first))
        reload(two, MORE)
        two.serve(3)
        until(lambda: ended(first), "the end of the killed worker")
        until(lambda: len(two.pids) == 2, "two workers")
        assert second in two.pids
        assert served_by_more(two) == set(two.pids)
        assert two.end() == 0
    assert f"(pid {first}) has ended: SIGKILL" in two.err


def test_worker_that_starts_during_a_reload_has_the_new_configuration(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as two:
        first, second = two.pids
        # The successor does not start before the reload has ended.
        (tmp_path / "slow").touch()
        os.kill(first, signal.SIGKILL)
        until(lambda: "has ended: SIGKILL" in two.err, "the end of the worker")
        until(lambda: len(two.pids) == 2, "its successor")
        starting = two.pids[1]
        path = tmp_path / "mail.toml"
        path.write_text(path.read_text() + SMTP)
        two.signal(signal.SIGHUP)
        until(lambda: reloads(two), "the reload")
        (tmp_path / "slow").unlink()
        two.serve(3)
        until(lambda: ended(starting), "the end of the one with the former configuration")
        until(lambda: len(two.pids) == 2, "two workers")
        assert second in two.pids
        assert served_by_more(two) == set(two.pids)
        assert two.end() == 0


def test_stop_during_a_reload(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as two:
        before = descriptors(two)
        (tmp_path / "slow").touch()
        path = tmp_path / "mail.toml"
        path.write_text(path.read_text() + MORE)
        two.signal(signal.SIGHUP)
        until(lambda: all(map(operator.gt, descriptors(two), before)), "the new socket")
        assert two.end() == 0
    assert reloads(two) == 0


def test_handler_that_cannot_start_in_one_worker_changes_nothing(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids, before = two.pids, descriptors(two)
        (tmp_path / "broken").write_text(str(pids[1]))
        append(two, MORE)
        done = commanded(two, "reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert "the handler cannot start: the store is broken" in done.stderr
        assert "failed with 1 problem; nothing has changed" in done.stderr
        assert two.pids == pids
        until(lambda: descriptors(two) == before, "the end of what was opened")
        assert status(two).keys() == {"it"}
        (tmp_path / "broken").unlink()
        assert commanded(two, "reload").returncode == 0
        assert served_by_more(two) == set(pids)
        assert two.end() == 0


def test_worker_killed_while_it_prepares_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        first, second = two.pids
        (tmp_path / "slow").touch()
        append(two, MORE)
        with background(two, "reload") as reload:
            until(lambda: (tmp_path / "starts").exists(), "handlers that start")
            os.kill(first, signal.SIGKILL)
            until(lambda: f"(pid {first}) has ended: SIGKILL" in two.err, "its end")
            # Its successor is started after the reload.
            assert two.pids == [second]
            (tmp_path / "slow").unlink()
            assert reload.communicate(timeout=PATIENCE) == ('listener "more": added\n', "")
        two.serve(3)
        assert len(two.pids) == 2
        assert served_by_more(two) == set(two.pids)
        assert two.end() == 0


def test_reloads_turn_no_client_away(tmp_path: Path) -> None:
    with workers(tmp_path, 4, head=head(tmp_path)) as four:
        pids = four.pids
        with attempts(four) as client:
            for round in range(6):
                # The first line belongs to the listener that the client connects to.
                changed = f'timeout.idle = "{30 + round} s"\n'
                reload(four, changed + MORE.replace("more", f"more{round}"))
                client.more(5)
                rewrite(four, changed, "")
                done = commanded(four, "reload")
                assert (done.returncode, done.stderr) == (0, "")
                client.more(5)
            assert client.failed == []
            assert client.pids <= set(pids)
            served = client.served
        assert four.pids == pids
        reload(four)
        until(lambda: len(set(descriptors(four)[1:])) == 1, "the end of the last client")
        before = descriptors(four)
        for _ in range(3):
            reload(four, MORE)
            reload(four)
        until(lambda: descriptors(four) == before, "the end of the sockets")
        assert four.end() == 0
    show(f"12 reloads with 4 workers: {served:,} clients, all served")
