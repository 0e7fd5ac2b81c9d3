"""`fastlisten status`, `reload`, `pause`, `resume`, `drain`, `limit` against a running program.

Rules of this file: the installed program serves, and the commands are processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import clean_environment
from support.forked import MAY_HAVE_THREADS, exit_status
from support.program import Program, program, run
from support.waiting import PATIENCE, until

from fastlisten.cli import control_client, status
from fastlisten.cli.control_client import ControlClient, ControlError

LISTENERS = """
[server.listener.submission]
protocol = "lmtp"
bind = ["127.0.0.1:0", "127.0.0.1:0"]
tls.enable = false
[server.listener."a b"]
protocol = "lmtp"
bind = "127.0.0.1:0"
tls.enable = false
"""


@contextlib.contextmanager
def serving(directory: Path, text: str = LISTENERS) -> Iterator[Program]:
    with program(directory, text, listeners=2) as started:
        yield started


def asked(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return run(*command, "--config", directory / "mail.toml")


def done(directory: Path, *command: str) -> str:
    """Run a command that succeeds; return what it prints."""
    result = asked(directory, *command)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_listener_is_controlled_from_the_command_line(tmp_path: Path) -> None:
    with serving(tmp_path) as started:
        assert done(tmp_path, "pause", "submission") == 'listener "submission": paused\n'
        assert done(tmp_path, "limit", "a b", "12").startswith(
            'listener "a b": max-connections = 12 until'
        )
        lines = done(tmp_path, "status").splitlines()
        assert lines[0] == f"PID {started.pid}, 1 worker, {tmp_path}/mail.toml"
        head, first, second = (line.split() for line in lines[2:])
        assert (
            " ".join(head) == "LISTENER STATE ADDRESSES CONNECTIONS LIMIT ACCEPTED REFUSED WORKERS"
        )
        (address,) = started.addresses["a b"]
        assert first == ['"a', 'b"', "listening", address, "0", "12", "0", "0", "0"]
        both = started.addresses["submission"]
        assert second == ["submission", "paused", *both, "0", "8192", "0", "0", "0"]
        assert done(tmp_path, "resume", "submission").endswith(": accepting again\n")
        assert done(tmp_path, "drain", "a b") == 'listener "a b": draining\n'

        def states() -> list[str]:
            document = json.loads(done(tmp_path, "status", "--json"))
            assert document.keys() == {"format", "server", "listeners"}
            return [one["state"] for one in document["listeners"]]

        until(lambda: states() == ["closed", "listening"], "the end of the drain")
        assert done(tmp_path, "reload") == "nothing has changed\n"
        refused = asked(tmp_path, "resume", "a b")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith('error: listener "a b" is closed and cannot be resumed')
        unknown = asked(tmp_path, "drain", "submissoin")
        assert unknown.returncode == 1
        assert unknown.stderr == (
            'error: there is no listener "submissoin"; did you mean "submission"?\n'
        )
        assert started.stop() == 0
        assert f'listener "submission": paused by uid {os.getuid()} (PID ' in started.err
    assert not (tmp_path / "data" / "control.sock").exists()


def test_reload_prints_what_has_changed(tmp_path: Path) -> None:
    with serving(tmp_path):
        file = tmp_path / "mail.toml"
        head, _, rest = file.read_text().partition('[server.listener."a b"]')
        file.write_text(f"{head}max-connections = 7\n[server.listener.new]{rest}")
        lines = done(tmp_path, "reload").splitlines()
        assert lines[:2] == ['listener "new": added', 'listener "a b": removed, draining']
        assert "max-connections" in lines[2]
        file.write_text("nonsense\n")
        result = asked(tmp_path, "reload", "--socket", str(tmp_path / "data" / "control.sock"))
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert "nothing has changed" in result.stderr


def test_without_a_server(tmp_path: Path) -> None:
    with serving(tmp_path) as started:
        started.signal(signal.SIGKILL)
        started.ended()
    # The socket is left behind, and nobody listens.
    result = asked(tmp_path, "status")
    assert (result.returncode, result.stdout) == (3, "")
    path = tmp_path / "data" / "control.sock"
    assert result.stderr.startswith("error: no running server found: ")
    assert f"{path}: no process listens" in result.stderr
    path.unlink()
    assert f"{path}: No such file or directory" in asked(tmp_path, "reload").stderr
    with serving(tmp_path) as started:
        assert done(tmp_path, "status").startswith(f"PID {started.pid}, ")


def test_server_of_another_configuration_is_not_controlled(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    with serving(tmp_path) as started:
        other.write_text((tmp_path / "mail.toml").read_text())
        path = str(tmp_path / "data" / "control.sock")
        for place in ((), ("--socket", path)):
            result = run("drain", "submission", "--config", other, *place)
            assert result.returncode == 3
            said = f'{path}: this server was started with "{tmp_path}/mail.toml"'
            assert said in result.stderr
        assert run("pause", "submission", "--socket", path).returncode == 0
        assert "listening" in done(tmp_path, "status")
        (tmp_path / "link.toml").symlink_to("mail.toml")
        assert run("resume", "submission", "--config", tmp_path / "link.toml").returncode == 0
        assert started.stop() == 0


def test_run_directory_of_a_service(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with program(tmp_path, LISTENERS, listeners=2, environ={"RUNTIME_DIRECTORY": str(directory)}):
        assert run("status", "--socket", directory / "control.sock").returncode == 0
        # The administrator's shell does not have that variable, so nothing is found.
        assert asked(tmp_path, "status").returncode == 3
        found = run("status", "--config", tmp_path / "mail.toml", RUNTIME_DIRECTORY=str(directory))
        assert found.returncode == 0


def test_second_server_with_the_same_configured_socket(tmp_path: Path) -> None:
    text = f'[server]\ncontrol-socket = "{tmp_path}/c"\n{LISTENERS}'
    with program(tmp_path, text, listeners=2, unchanged=True) as started:
        result = run("serve", tmp_path / "mail.toml", STATE_DIRECTORY=str(tmp_path / "data"))
        assert result.returncode == 3
        said = f"error: server.control-socket: {tmp_path}/c: Address already in use (held by PID"
        assert result.stderr.startswith(f"{said} {started.pid}, ")
        assert run("status", "--socket", tmp_path / "c").returncode == 0


@pytest.mark.parametrize("arguments", [["pause"], ["limit", "it"], ["limit", "it", "many"]])
def test_usage_errors(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "usage: fastlisten" in result.stderr


def test_broken_configuration(tmp_path: Path) -> None:
    (tmp_path / "mail.toml").write_text("[server\n")
    result = asked(tmp_path, "status")
    assert result.returncode == 2
    assert result.stderr.count("error") == 2  # the mistake, and their count
    assert "--socket PATH" in result.stderr  # a way to the server without the file
    assert "--socket" not in asked(tmp_path, "reload").stderr  # which has to read it


def test_watch_prints_until_the_server_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastlisten", "status", "--watch"]
    with (
        serving(tmp_path) as started,
        subprocess.Popen(
            [*command, "--config", str(tmp_path / "mail.toml")],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout is not None
        assert watching.stderr is not None
        for _ in range(2):
            while not (line := watching.stdout.readline()).startswith("PID"):
                assert line
        assert started.stop() == 0
        assert watching.wait(PATIENCE) in (1, 3)
        assert "error: " in watching.stderr.read()


@MAY_HAVE_THREADS
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path):
        path = tmp_path / "data" / "control.sock"
        for directory in (tmp_path / "data", tmp_path, *tmp_path.parents[:2]):
            directory.chmod(0o711)

        def refused() -> bool:
            os.setuid(65534)
            with pytest.raises(ControlError, match=r"permission denied for .* as root") as error:
                ControlClient([str(path)]).ask("status")
            return error.value.code == 3

        assert exit_status(refused) == 0


# --- servers that do not answer -------------------------------------------------------------------


@contextlib.contextmanager
def listening(directory: Path, backlog: int = 5) -> Iterator[tuple[socket.socket, str]]:
    path = str(directory / "c")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(backlog)
        yield sock, path


def test_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "TIMEOUT", 0.05)
    with (
        listening(tmp_path) as (_, path),
        contextlib.closing(ControlClient([path])) as client,
        pytest.raises(ControlError) as error,
    ):
        client.ask("status")
    assert error.value.code == 1
    said = f"the server (PID {os.getpid()}) has not answered within 0.05 s"
    assert str(error.value) == said


def test_server_that_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_client, "TIMEOUT", 0.05)
    with listening(tmp_path, 0) as (_, path), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        with (
            contextlib.closing(ControlClient([path])) as client,
            pytest.raises(ControlError, match=r"has not accepted within 0\.05 s") as error,
        ):
            client.ask("status")
    assert error.value.code == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection before it had answered"),
        (b'{"ok": tr', "closed the connection before it had answered"),
        (b"[]\n", "closed the connection before it had answered"),
        (b'{"ok": false, "message": "not today"}\n', "not today"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes, said: str) -> None:
    with listening(tmp_path) as (sock, path):

        def serve() -> None:
            client, _ = sock.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            contextlib.closing(ControlClient([path])) as client,
            pytest.raises(ControlError, match=said) as error,
        ):
            client.ask("status")
        thread.join()
    assert error.value.code == 1


def test_workers_column() -> None:
    assert status._workers([3]) == "3"
    assert status._workers([3, 0, 5]) == "3 0 5"
    assert status._workers(list(range(53))) == "53, with 0 to 52"
