"""The start of several workers: who binds, who imports, what is printed, exit codes.

Rules of this file: the program is real. What must not have happened is looked for once something
later has happened.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.other_user import NOBODY, entering, needs_root, status_of, user_directory
from support.program import run
from support.waiting import until
from support.workers import WHO, workers

import fastlisten
from fastlisten import ConfigurationError
from fastlisten.config import loads


@pytest.fixture
def directory() -> Iterator[Path]:
    with user_directory() as path:
        yield path


def test_each_worker_serves(tmp_path: Path) -> None:
    with workers(tmp_path, 3) as three:
        pids = three.pids
        assert len(set(pids)) == 3
        for pid in pids:
            three.served_by(pid).close()
        assert three.end() == 0
    err = three.err
    assert err.count("has ended: exit code 0") == 3
    assert err.endswith("INFO fastlisten: stopped\n")


def test_what_is_served_is_printed_once(tmp_path: Path) -> None:
    with workers(tmp_path, 3) as three:
        assert three.end() == 0
    (listening, note) = three.program.out.splitlines()
    assert listening.startswith('listener "it": http on 127.0.0.1:')
    assert note == 'listener "it": it says who'


def test_records_of_workers_name_the_worker(tmp_path: Path) -> None:
    head = 'shutdown-timeout = "1s"\n'
    with workers(tmp_path, 2, WHO + '[log]\nformat = "json"\n', head=head) as two:
        os.kill(two.pids[0], signal.SIGTERM)
        two.serve(3)
        assert two.end() == 0
    records = [json.loads(line) for line in two.err.splitlines()]
    drains = [one.get("worker") for one in records if one["event"] == "signal-received"]
    assert sorted(drains, key=str) == [0, None]
    started = [one["worker"] for one in records if one["event"] == "worker-started"]
    assert sorted(started) == [0, 0, 1]


def imports(directory: Path) -> list[tuple[int, int]]:
    """Return process and user ids of the processes that have imported the handler."""
    lines = (directory / "imports").read_text().splitlines()
    return [(int(pid), int(uid)) for pid, uid in (line.split() for line in lines)]


def test_supervisor_imports_no_handler(tmp_path: Path) -> None:
    """The class variables of the class are found out by a child that has ended since."""
    with workers(tmp_path, 2) as two:
        pids = [pid for pid, _ in imports(tmp_path)]
        assert len(pids) == 3
        assert two.pid not in pids
        assert set(two.pids) < set(pids)
        assert two.end() == 0


@needs_root
def test_workers_are_another_user(directory: Path) -> None:
    (directory / "imports").touch()
    (directory / "imports").chmod(0o666)
    (directory / "data").mkdir()
    os.chown(directory / "data", NOBODY.pw_uid, NOBODY.pw_gid)
    head = 'run-as.user = "nobody"\n'
    with workers(directory, 2, head=head, wrapper=entering()) as two:
        assert status_of(two.pid)["Uid"][0] == "0"
        for pid in two.pids:
            found = status_of(pid)
            assert found["Uid"] == [str(NOBODY.pw_uid)] * 4
            assert found["Groups"] == [str(NOBODY.pw_gid)]
            assert found["CapPrm"] == found["CapEff"] == ["0" * 16]
        users = [uid for _, uid in imports(directory)]
        assert users == [NOBODY.pw_uid] * 3
        assert two.end() == 0


def test_start_that_fails_ends_with_3_and_one_message(tmp_path: Path) -> None:
    """The other workers are not started, so there is one message, not one for each."""
    (tmp_path / "broken").touch()
    with workers(tmp_path, 3, serve=False) as three:
        assert three.program.ended() == 3
    assert three.program.out == ""
    assert three.err.count("cannot start: the store is broken") == 1
    assert three.err.count("has ended: exit code 3") == 1


def test_handler_that_cannot_be_found_ends_with_2(tmp_path: Path) -> None:
    text = WHO + WHO.replace(".it]", ".b]").replace(
        'handler = "support.told_handlers:Told"', 'app = "nowhere:app"\ntls.enable = false'
    )
    with workers(tmp_path, 3, text, serve=False) as three:
        assert three.program.ended() == 2
    errors = [line for line in three.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "server.listener.b.app" in errors[0]
    assert three.program.out == ""


def test_address_in_use_ends_with_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        text = WHO.replace(":0", f":{holder.getsockname()[1]}")
        with workers(tmp_path, 2, text, serve=False) as two:
            assert two.program.ended() == 3
    assert 'error: listener "it" on 127.0.0.1' in two.err


def test_stop_while_the_first_worker_starts(tmp_path: Path) -> None:
    handler = "[server.listener.it]\nprotocol = 'http'\nbind = '127.0.0.1:0'\n"
    handler += "app = 'support.hanging_import:app'\ntls.enable = false\n"
    with workers(tmp_path, 2, handler, serve=False) as two:
        until((tmp_path / "hangs").exists, "the application's import")
        assert two.end() == 0
    assert two.program.out == ""


def test_limits_above_the_descriptor_limit_of_all_workers_warn(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -n 600; exec "$@"', "sh"]
    # 500 are too many for one worker (test_serve_program.py), not for two.
    for limit, warnings in ((500, 0), (700, 1)):
        directory = tmp_path / str(limit)
        directory.mkdir()
        text = WHO + f"max-connections = {limit}\n"
        with workers(directory, 2, text, wrapper=limited) as server:
            assert server.end() == 0
            lines = [one for one in server.err.splitlines() if "RLIMIT_NOFILE" in one]
        assert len(lines) == warnings
    assert "add up to 700, but each of 2 workers may open 600 files (RLIMIT_NOFILE)" in lines[0]


def test_library_has_one_worker() -> None:
    handler = WHO.replace("told_handlers:Told", "serving_handlers:Echo")
    config = loads(f"[server]\nworkers = 2\n{handler}")
    with pytest.raises(ConfigurationError) as caught:
        fastlisten.Server(config)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("server.workers", 2)
    assert "fastlisten serve" in problem.message


@pytest.mark.parametrize(("value", "message"), [("86", "the maximum is 85"), ("0", "minimum is 1")])
def test_number_of_workers_is_bounded(tmp_path: Path, value: str, message: str) -> None:
    file = tmp_path / "mail.toml"
    file.write_text(f"[server]\nworkers = {value}\n{WHO}")
    done = run("check", file, TOLD=str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr
