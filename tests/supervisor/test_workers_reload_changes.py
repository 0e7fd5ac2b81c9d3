"""The configuration reloaded with several workers: what changes in each of them, and what does not.

Rules of this file: the program, the command and the clients are real. Each worker answers while the
others are stopped. A worker that is started later has the same configuration.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from support.waiting import PATIENCE, until
from support.worker_reloads import append, descriptors, head, reload, rewrite
from support.workers import WHO, Workers, line, stopped, workers

MORE = WHO.replace("listener.it", "listener.more")

SMTP = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
hostname = "old.example"
"""


def logged_port(server: Workers, listener: str) -> int:
    """Return the port of a listener that a reload has added."""
    found = re.search(rf'listener "{listener}": \S+ on 127\.0\.0\.1:(\d+);', server.err)
    assert found, server.err
    return int(found[1])


def said_by_each(server: Workers, port: int) -> list[bytes]:
    """Return the first line that each worker sends, the oldest first."""
    said = []
    for pid in server.pids:
        with (
            stopped(*(one for one in server.pids if one != pid)),
            socket.create_connection(("127.0.0.1", port), PATIENCE) as client,
        ):
            said.append(line(client))
    return said


def test_listener_is_added_and_removed(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids, before = two.pids, descriptors(two)
        append(two, MORE)
        done = reload(two)
        assert (done.returncode, done.stdout, done.stderr) == (0, 'listener "more": added\n', "")
        port = logged_port(two, "more")
        assert two.pids == pids
        assert said_by_each(two, port) == [b"%d\n" % pid for pid in pids]
        # One that is started later, too.
        os.kill(pids[0], signal.SIGKILL)
        two.serve(3)
        until(lambda: len(two.pids) == 2, "two workers")
        assert said_by_each(two, port) == [b"%d\n" % pid for pid in two.pids]
        rewrite(two, MORE, "")
        done = reload(two)
        assert (done.returncode, done.stdout) == (0, 'listener "more": removed, draining\n')
        until(lambda: descriptors(two) == before, "the end of the sockets")
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0
        assert said_by_each(two, two.program.port()) == [b"%d\n" % pid for pid in two.pids]
        assert two.end() == 0
    assert two.err.count('listener "more": removed from the configuration; draining') == 1


def test_live_values_reach_every_worker(tmp_path: Path) -> None:
    with workers(tmp_path, 2, SMTP, head=head(tmp_path)) as two:
        pids, port = two.pids, two.program.port()
        before = descriptors(two)
        assert [one.split()[1] for one in said_by_each(two, port)] == [b"old.example"] * 2
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as open_one:
            line(open_one)
            rewrite(two, "old.example", "new.example")
            done = reload(two)
            text = 'listener "it": hostname = "new.example" (was "old.example")\n'
            assert (done.returncode, done.stdout) == (0, text)
            # It keeps the settings that it began with.
            open_one.sendall(b"HELO client.example\r\n")
            assert line(open_one).startswith(b"250 old.example")
        assert two.pids == pids
        assert [one.split()[1] for one in said_by_each(two, port)] == [b"new.example"] * 2
        os.kill(pids[1], signal.SIGKILL)
        two.serve(3)
        until(lambda: len(two.pids) == 2, "two workers")
        assert [one.split()[1] for one in said_by_each(two, port)] == [b"new.example"] * 2
        until(lambda: descriptors(two) == before, "the end of what is not needed")
        assert two.end() == 0
    assert two.err.count('hostname = "new.example"') == 1


def test_mistakes_change_nothing(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids, before = two.pids, descriptors(two)
        original = (tmp_path / "mail.toml").read_text()
        # The command would notice it itself.
        append(two, 'no-such-key = "x"\n')
        two.signal(signal.SIGHUP)
        until(lambda: "failed with 1 problem; nothing has changed" in two.err, "the reload")
        assert "no-such-key" in two.err
        (tmp_path / "mail.toml").write_text(original)
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            second = MORE.replace("listener.more", "listener.second")
            # Of these one can be bound, the other one cannot.
            bound = MORE + second.replace("127.0.0.1:0", taken)
            cases = [
                (bound, f'listener "second" on {taken}: bind: Address already in use'),
                (MORE, "the handler cannot start: the store is broken"),
            ]
            for text, problem in cases:
                if "broken" in problem:
                    (tmp_path / "broken").touch()
                append(two, text)
                done = reload(two)
                assert (done.returncode, done.stdout) == (1, "")
                assert problem in done.stderr
                assert "failed with 1 problem; nothing has changed" in done.stderr
                (tmp_path / "mail.toml").write_text(original)
        (tmp_path / "broken").unlink()
        assert two.pids == pids
        until(lambda: descriptors(two) == before, "the end of what was opened")
        # All is as before, and the next reload succeeds.
        append(two, MORE)
        assert reload(two).returncode == 0
        assert said_by_each(two, logged_port(two, "more")) == [b"%d\n" % pid for pid in pids]
        assert two.end() == 0
    assert "the store is broken" in two.err


def test_what_needs_a_restart_is_reported(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        rewrite(two, "workers = 2", "workers = 3")
        done = reload(two)
        assert (done.returncode, done.stdout) == (0, "nothing has changed\n")
        assert "server.workers = 3 needs a stop and a start of the server; still 2" in done.stderr
        assert len(two.pids) == 2
        assert two.end() == 0
