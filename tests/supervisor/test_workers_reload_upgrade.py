"""Reloads and upgrades of the same server: what a reload has changed survives an upgrade.

Rules of this file: a client loop goes on all the time, and no attempt may fail. When the upgrade
begins, and how long its check takes, is decided by files that the programs look at (`GATES`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from support.attempts import attempts
from support.kernel import ended
from support.waiting import PATIENCE, until
from support.worker_reloads import (
    append,
    ask,
    background,
    commanded,
    connected,
    descriptors,
    head,
    listener,
    refused,
    reload,
    reloads,
    rewrite,
    signalled,
    status,
)
from support.workers import line, patched, workers

#: The check of an upgrade writes the file `checking`, then waits while there is a file `check`, and
#: fails if there is a file `fail`.
GATES = """
import os, pathlib, sys, time
told = pathlib.Path(os.environ["TOLD"])
if "upgrade-check" in sys.orig_argv:
    (told / "checking").touch()
    while (told / "check").exists():
        time.sleep(0.01)
    if (told / "fail").exists():
        sys.exit("it does not like it")
"""

UPGRADED = "upgraded, 2 workers replaced\n"


def test_what_a_reload_has_changed_survives_an_upgrade(tmp_path: Path) -> None:
    long = head(tmp_path) + 'shutdown-timeout = "1h"\n'
    with workers(tmp_path, 2, head=long) as two, contextlib.ExitStack() as stack:
        append(two, listener(tmp_path, "old"))
        assert reload(two).returncode == 0
        rewrite(two, listener(tmp_path, "old"), "# no more\n")
        client = stack.enter_context(attempts(two))
        append(two, listener(tmp_path, "more", "max-connections = 5\n"))
        done = reload(two)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            'listener "more": added',
            'listener "old": removed, draining',
        ]
        rewrite(two, "max-connections = 5", "max-connections = 3")
        assert reload(two).returncode == 0
        for _ in range(3):
            ask(two, "more")
        held = stack.enter_context(connected(two, "more"))
        server = int(line(held))
        held.sendall(b"begin")
        assert held.recv(5) == b"begin"
        old = two.pids
        done = commanded(two, "upgrade")
        assert (done.returncode, done.stdout, done.stderr) == (0, UPGRADED, "")
        # The former worker holds one place of three, and all that was counted still counts.
        found = status(two)
        assert found.keys() == {"it", "more"}
        more = found["more"]
        assert (more["limit"], more["connections"], more["accepted"]) == (3, 1, 4)
        others = [stack.enter_context(connected(two, "more")) for _ in range(2)]
        assert all(int(line(one)) not in old for one in others)
        assert ask(two, "more") == b"refused: limit\n"
        held.sendall(b"end")
        assert held.recv(3) == b"end"
        held.close()
        until(lambda: ended(server), "the end of the worker that was busy")
        # The new program reloads, too: the same workers, and what has not changed stays.
        new = two.pids
        rewrite(two, listener(tmp_path, "more", "max-connections = 3\n"), "")
        append(two, listener(tmp_path, "third", "max-connections = 1\n"))
        assert reload(two).returncode == 0
        assert two.pids == new
        with connected(two, "third") as one:
            assert int(line(one)) in new
            assert ask(two, "third") == b"refused: limit\n"
        assert status(two).keys() == {"it", "third"}
        assert commanded(two, "upgrade").stdout == UPGRADED
        assert int(ask(two, "third")) not in new
        client.more(10)
        assert client.failed == []
        client.end()
        assert two.end() == 0


def test_nothing_leaks(tmp_path: Path) -> None:
    more = listener(tmp_path, "more")
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        append(two, "# more\n")
        counts = []
        for _ in range(2):
            rewrite(two, "# more\n", more)
            signalled(two)
            assert commanded(two, "upgrade").stdout == UPGRADED
            assert int(ask(two, "more")) in two.pids
            rewrite(two, more, "# more\n")
            signalled(two)
            assert commanded(two, "upgrade").stdout == UPGRADED
            until(lambda: len(two.pids) == 2, "the end of the old workers")
            until(lambda: len(set(descriptors(two)[1:])) == 1, "two workers alike")
            counts.append(descriptors(two))
        assert counts[0] == counts[1]
        assert two.end() == 0


def test_reload_waits_for_an_upgrade_and_the_new_program_carries_it_out(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, GATES)) as two:
        (tmp_path / "check").touch()
        with background(two, "upgrade") as upgrade, attempts(two) as client:
            until(lambda: (tmp_path / "checking").exists(), "the check")
            rewrite(two, 'handler = "', 'timeout.idle = "31s"\nhandler = "')
            two.signal(signal.SIGHUP)
            until(lambda: "SIGHUP: reloading after the upgrade" in two.err, "the signal")
            (tmp_path / "check").unlink()
            assert upgrade.communicate(timeout=PATIENCE) == (UPGRADED, "")
            # It has read the file itself before.
            until(lambda: "no changes in" in two.err, "the reload")
            said = two.err.partition("the new program has taken over")[2]
            assert "no changes in" in said
            assert client.failed == []
        assert reloads(two) == 0
        assert two.end() == 0


def test_reload_after_an_upgrade_that_has_failed(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, GATES)) as two:
        pids = two.pids
        (tmp_path / "check").touch()
        (tmp_path / "fail").touch()
        with contextlib.ExitStack() as stack:
            upgrade = stack.enter_context(background(two, "upgrade"))
            until(lambda: (tmp_path / "checking").exists(), "the check")
            append(two, listener(tmp_path, "more"))
            waiting = stack.enter_context(background(two, "reload"))
            until(lambda: "reload requested by" in two.err, "the request")
            assert waiting.poll() is None
            (tmp_path / "check").unlink()
            assert "it does not like it" in upgrade.communicate(timeout=PATIENCE)[1]
            assert waiting.communicate(timeout=PATIENCE) == ('listener "more": added\n', "")
        assert two.pids == pids
        assert int(ask(two, "more")) in pids
        assert two.end() == 0


def test_upgrade_is_refused_while_a_reload_is_under_way(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        pids = two.pids
        (tmp_path / "slow").touch()
        append(two, listener(tmp_path, "more"))
        two.signal(signal.SIGHUP)
        until(lambda: (tmp_path / "more.sock").exists(), "the reload")
        assert "a reload is under way; try again when that is done" in refused(two, "upgrade")
        (tmp_path / "slow").unlink()
        until(lambda: reloads(two), "the end of the reload")
        assert two.pids == pids
        assert commanded(two, "upgrade").stdout == UPGRADED
        assert int(ask(two, "more")) not in pids
        os.kill(two.pids[0], signal.SIGKILL)
        two.serve(5)
        assert two.end() == 0
