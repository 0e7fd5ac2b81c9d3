"""`fastlisten upgrade`: the supervisor becomes the program on disk, and its workers are replaced.

Rules of this file: the program, the command and the clients are real. What happens at a certain
moment of the upgrade is made to happen by code that runs in the program (`sitecustomize`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.attempts import attempts
from support.kernel import ended
from support.program import program, run
from support.waiting import until
from support.workers import WHO, Workers, line, patched, workers

#: Runs code instead of the system call that ends the former program, while there is a file `exec`.
AT_EXEC = """
import os, signal
from pathlib import Path
execve = os.execve
def at_exec(*arguments):
    told = Path(os.environ["TOLD"], "exec")
    if told.exists():
        code = told.read_text()
        told.unlink()
        exec(code)
    execve(*arguments)
os.execve = at_exec
"""

#: Names the process, if there is a file `name`, which it removes.
NAMED = """
import os
told = os.path.join(os.environ["TOLD"], "name")
if os.path.exists(told):
    os.unlink(told)
    with open("/proc/self/comm", "w") as file:
        file.write("mail  server")
"""

#: Gives programs that start another version of the shared memory, while there is a file `foreign`.
FOREIGN = """
import os
if os.path.exists(os.path.join(os.environ["TOLD"], "foreign")):
    import fastlisten._arena as it
    it.ARENA_VERSION += 1
"""


def head(directory: Path) -> str:
    return f'shutdown-timeout = "1h"\ncontrol-socket = "{directory / "control"}"\n'


def told(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command for the server of this directory."""
    return run(*command, "--config", directory / "mail.toml", TOLD=str(directory))


def upgrade(directory: Path) -> None:
    """Run `fastlisten upgrade`, which succeeds."""
    done = told(directory, "upgrade")
    out = "upgraded, 2 workers replaced\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


def refused(directory: Path) -> str:
    """Run `fastlisten upgrade`, which is refused; return why."""
    # With the socket, because the command would read the file, too.
    done = run("upgrade", "--socket", directory / "control", TOLD=str(directory))
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def status(directory: Path) -> dict[str, Any]:
    """Return what `fastlisten status` says about the listener."""
    found = json.loads(told(directory, "status", "--json").stdout)["listeners"][0]
    assert isinstance(found, dict)
    return found


def begun(server: Workers) -> str:
    """Return when the supervisor's program began, so that another one is told apart.

    The time at which a process was created does not change with execve(2), the place of its
    environment in memory does: proc(5).
    """
    return Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[47]


def descriptors(server: Workers) -> Counter[str]:
    """Return how many descriptors of each kind the supervisor has."""
    found: Counter[str] = Counter()
    for path in Path(f"/proc/{server.pid}/fd").iterdir():
        found[os.readlink(path).partition(":[")[0]] += 1
    return found


def inheritable(server: Workers) -> list[int]:
    """Return the descriptors that programs run by the supervisor would inherit: proc(5)."""
    found = []
    for path in Path(f"/proc/{server.pid}/fdinfo").iterdir():
        flags = int(path.read_text().partition("flags:")[2].split()[0], 8)
        if not flags & os.O_CLOEXEC:
            found.append(int(path.name))
    return sorted(found)


def test_upgrade_turns_no_client_away(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two, attempts(two) as client:
        old, before, program_before = two.pids, descriptors(two), begun(two)
        upgrade(tmp_path)
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        new = two.pids
        assert len(new) == 2
        assert begun(two) != program_before
        client.more(10)
        assert client.failed == []
        assert client.pids <= {*old, *new}
        until(lambda: descriptors(two) == before, "the descriptors of before, and no other")
        assert inheritable(two) == [0, 1, 2]
        # A worker that ends is healed by the new program: it is still the parent.
        os.kill(new[0], signal.SIGKILL)
        two.serve(5)
        assert f"worker 0 (pid {new[0]}) has ended: SIGKILL" in two.err
        # And it can be upgraded again.
        upgrade(tmp_path)
        client.end()
        assert two.end() == 0
    assert two.err.count("the new program has taken over") == 2


def test_name_of_the_process_stays(tmp_path: Path) -> None:
    """Of one that the kernel has started by `#!`; execve(2) of an interpreter gives another one."""
    (tmp_path / "name").touch()
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, NAMED)) as two:
        old = two.pids
        upgrade(tmp_path)
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        for pid in (two.pid, *two.pids):
            assert Path(f"/proc/{pid}/comm").read_text() == "mail  server\n"
        assert two.end() == 0


def test_limit_is_exact_and_all_places_are_free_afterwards(tmp_path: Path) -> None:
    text = f"{WHO}max-connections = 2\n"
    with workers(tmp_path, 2, text, head=head(tmp_path)) as two:
        first = two.pids[0]
        with two.connect() as held:
            server = int(line(held))
            held.sendall(b"begin")
            assert held.recv(5) == b"begin"
            upgrade(tmp_path)
            # The former worker still holds one place of two.
            assert not ended(server)
            with two.connect() as second:
                assert int(line(second)) not in (first, server)
                with two.connect() as third:
                    assert line(third).startswith(b"refused")
                assert status(tmp_path)["connections"] == 2
            os.kill(server, signal.SIGKILL)
            until(lambda: ended(server), "the end of the old worker")
        until(lambda: status(tmp_path)["connections"] == 0, "two free places")
        with two.connect() as one, two.connect() as other:
            assert line(one).strip().isdigit()
            assert line(other).strip().isdigit()
        assert two.end() == 0


def test_changes_made_by_commands_stay(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        for _ in range(3):
            two.ask()
        assert told(tmp_path, "limit", "it", "7").returncode == 0
        assert told(tmp_path, "pause", "it").returncode == 0
        upgrade(tmp_path)
        found = status(tmp_path)
        assert (found["state"], found["limit"]) == ("paused", 7)
        assert found["accepted"] == 3
        assert told(tmp_path, "resume", "it").returncode == 0
        two.ask()
        assert two.end() == 0


def test_failed_check_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        old, before, program_before = two.pids, descriptors(two), begun(two)
        text = file.read_text()
        file.write_text(text + 'backllog = "3"\n')
        assert "backllog" in refused(tmp_path)
        # What can be served, but not by this server.
        for key, value, remedy in (
            ("workers = 2", "workers = 3", "that needs a stop and a start"),
            ("127.0.0.1:0", "127.0.0.2:0", "run fastlisten reload first"),
        ):
            file.write_text(text.replace(key, value))
            assert f"in the running server: {remedy}" in refused(tmp_path)
        file.write_text(text)
        assert (two.pids, begun(two)) == (old, program_before)
        until(lambda: descriptors(two) == before, "the descriptors of before, and no other")
        two.ask()
        # A limit can change.
        file.write_text(text + "max-connections = 77\n")
        upgrade(tmp_path)
        assert status(tmp_path)["limit"] == 77
        assert two.end() == 0


def test_program_with_another_shared_memory_is_refused(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, FOREIGN)) as two:
        old = two.pids
        (tmp_path / "foreign").touch()
        said = refused(tmp_path)
        assert "the version of the shared memory is" in said
        assert "that needs a stop and a start" in said
        assert two.pids == old
        two.ask()
        (tmp_path / "foreign").unlink()
        upgrade(tmp_path)
        assert two.end() == 0


def test_program_that_cannot_be_run_changes_nothing(tmp_path: Path) -> None:
    """execve(2) itself fails, after everything has been prepared."""
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, AT_EXEC)) as two:
        old, before = two.pids, descriptors(two)
        (tmp_path / "exec").write_text("raise OSError(8, 'Exec format error')")
        assert "cannot be run: [Errno 8] Exec format error" in refused(tmp_path)
        assert two.pids == old
        until(lambda: descriptors(two) == before, "the descriptors of before, and no other")
        assert inheritable(two) == [0, 1, 2]
        # Signals arrive, and the next one succeeds.
        os.kill(old[0], signal.SIGKILL)
        two.serve(3)
        upgrade(tmp_path)
        assert two.end() == 0


def test_signals_and_ends_of_workers_during_the_exec(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path), environ=patched(tmp_path, AT_EXEC)) as two:
        old = two.pids
        kill = f"os.kill({old[0]}, signal.SIGKILL)"
        (tmp_path / "exec").write_text(f"{kill}; os.kill(os.getpid(), signal.SIGHUP)")
        assert told(tmp_path, "upgrade").returncode == 0
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        until(lambda: len(two.pids) == 2, "two workers")
        assert f"worker 0 (pid {old[0]}) has ended: SIGKILL" in two.err
        until(lambda: "SIGHUP: reloading" in two.err.partition("taken over")[2], "the reload")
        (tmp_path / "exec").write_text("os.kill(os.getpid(), signal.SIGTERM)")
        told(tmp_path, "upgrade")
        assert two.program.ended() == 0
        assert "SIGTERM: draining" in two.err


def test_new_worker_that_cannot_start_leaves_the_old_ones(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        old = two.pids
        (tmp_path / "broken").touch()
        assert "the new program has taken over, but" in refused(tmp_path)
        assert two.pids == old
        two.ask()
        (tmp_path / "broken").unlink()
        assert told(tmp_path, "restart").returncode == 0
        assert two.end() == 0


def test_one_process_cannot_be_upgraded(tmp_path: Path) -> None:
    environ = {"TOLD": str(tmp_path)}
    with program(tmp_path, head(tmp_path) + WHO, environ=environ) as started:
        said = refused(tmp_path)
        assert "this server is one process" in said
        assert "stop and start it" in said
        assert started.stop() == 0


@pytest.mark.parametrize("command", ["status", "pause"])
def test_other_clients_of_the_control_socket_stay(tmp_path: Path, command: str) -> None:
    request = {"command": command} if command == "status" else {"command": command, "id": "it"}
    with workers(tmp_path, 2, head=head(tmp_path)) as two:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "control"))
            # Half of a request before, the other half afterwards.
            sent = json.dumps(request).encode()
            client.sendall(sent[:9])
            upgrade(tmp_path)
            client.sendall(sent[9:] + b"\n")
            assert json.loads(line(client))["ok"] is True
        assert two.end() == 0
