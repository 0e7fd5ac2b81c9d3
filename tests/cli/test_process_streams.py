"""Standard streams that are closed, full, broken or unread, and characters they cannot encode.

A server goes on, other commands exit with 1 and say why; there is never a traceback, and no socket
gets the number of a standard descriptor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli
from support.environment import clean_environment
from support.waiting import PATIENCE, until

#: So many that their list does not fit into a pipe (pipe(7): 64 KiB).
MANY = 600

LISTENER = """
[server.listener."{name}"]
protocol = "smtp"
bind = "{bind}"
tls.enable = false
"""

COMMANDS = {
    "check": ["check", "mail.toml"],
    "show": ["show", "mail.toml"],
    "show --json": ["show", "--json", "mail.toml"],
    "show --toml": ["show", "--toml", "mail.toml"],
    "show --effective": ["show", "--effective", "mail.toml"],
    "account add": ["account", "add", "a@example.org", "--config", "mail.toml"],
    "account list": ["account", "list", "--config", "mail.toml"],
    "version": ["--version"],
    "help": ["--help"],
}


def configure(directory: Path, *listeners: str) -> None:
    (directory / "data").mkdir(exist_ok=True)
    accounts = directory / "data" / "accounts.toml"
    accounts.write_text('[account."a.b@example.org"]\n')
    accounts.chmod(0o600)
    head = '[server]\nhostname = "mx.example.org"\ndata-directory = "data"\n'
    text = "".join(listeners) or LISTENER.format(name="it", bind="127.0.0.1:0")
    (directory / "mail.toml").write_text(
        head.replace('"data"', f'"{directory / "data"}"') + text, "utf-8"
    )


def shell(redirection: str) -> list[str]:
    """Return the wrapper of a command whose streams are redirected as a shell writes it."""
    return ["bash", "-c", f'exec "$@" {redirection}', "bash"]


def fastlisten(
    directory: Path, redirection: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*shell(redirection), sys.executable, "-m", "fastlisten", *arguments],
        env=clean_environment(**environ),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", b"standard output: No space left on device\n"),
        (">&-", b"standard output is closed\n"),
        ("1</dev/null", b"standard output: Bad file descriptor\n"),
    ],
)
def test_command_fails_if_its_output_is_lost(
    tmp_path: Path, redirection: str, said: bytes, command: str, unbuffered: str
) -> None:
    configure(tmp_path)
    done = fastlisten(tmp_path, redirection, *COMMANDS[command], PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, said)


def test_account_changes_nothing_without_an_output(tmp_path: Path) -> None:
    configure(tmp_path)
    before = (tmp_path / "data" / "accounts.toml").read_bytes()
    done = fastlisten(tmp_path, ">&-", *COMMANDS["account add"])
    assert done.returncode == 1
    assert (tmp_path / "data" / "accounts.toml").read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_command_fails_silently_if_its_reader_has_gone(tmp_path: Path, command: str) -> None:
    configure(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-m", "fastlisten", *COMMANDS[command]],
            env=clean_environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=broken,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-", "2</dev/null"])
def test_exit_code_without_stderr(tmp_path: Path, redirection: str) -> None:
    (tmp_path / "mail.toml").write_text("nonsense = 1\n")
    for command in ("check", "show", "serve"):
        done = fastlisten(tmp_path, redirection, command, "mail.toml")
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_password_prompt_with_closed_stdin(tmp_path: Path) -> None:
    configure(tmp_path)
    arguments = ["account", "passwd", "a.b@example.org", "--config", "mail.toml"]
    for more in ([], ["--password-stdin"]):
        done = fastlisten(tmp_path, "<&-", *arguments, *more)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1
        assert b"Traceback" not in done.stderr


# --- a server ---------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(
    directory: Path, redirection: str, **how: object
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server whose listener is a Unix socket; give the process and the socket's path."""
    path = str(directory / "socket")
    configure(directory, LISTENER.format(name="it", bind=f"unix:{path}"))
    with run_server(directory, redirection, **how) as process:
        until(lambda: os.path.exists(path) or process.poll() is not None, "the socket")
        assert process.poll() is None
        yield process, path


@contextlib.contextmanager
def run_server(
    directory: Path, redirection: str, **how: object
) -> Iterator[subprocess.Popen[bytes]]:
    arguments: dict[str, object] = {
        "env": clean_environment(),
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": directory,
        **how,
    }
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    process = start(
        [*shell(redirection), sys.executable, "-m", "fastlisten", "serve", "mail.toml"],
        **arguments,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def greeting(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        until(lambda: client.connect_ex(path) == 0, "a listener")
        return client.recv(1000)


LOST = [">&-", ">/dev/full", "1</dev/null", "> >(true)", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"]


@pytest.mark.parametrize("redirection", LOST)
def test_server_needs_no_standard_streams(tmp_path: Path, redirection: str) -> None:
    with serving(tmp_path, redirection) as (process, path):
        assert greeting(path).startswith(b"220 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_no_socket_gets_a_standard_descriptor(tmp_path: Path, closed: str) -> None:
    with serving(tmp_path, closed) as (process, path):
        assert greeting(path).startswith(b"220 ")
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_output_of_an_application_cannot_fail(tmp_path: Path) -> None:
    """Printing to an output that is full, closed or gone looks successful to it."""
    (tmp_path / "chatty.py").write_text(
        "import sys\n"
        "print('x' * 100_000)\n"
        "sys.stdout.buffer.write(b'x' * 100_000)\n"
        "sys.stdout.flush()\n"
        "async def app(scope, receive, send):\n"
        "    print('\\u0436', file=sys.stderr)\n"
        "    raise NotImplementedError\n"
    )
    path = f"{tmp_path}{os.pathsep}{clean_environment()['PYTHONPATH']}"
    for redirection in LOST:
        socket_path = str(tmp_path / "socket")
        listener = LISTENER.format(name="it", bind=f"unix:{socket_path}").replace("smtp", "http")
        configure(tmp_path, listener + 'app = "chatty:app"\n')
        environ = clean_environment(PYTHONPATH=path, PYTHONIOENCODING="ascii")
        with run_server(tmp_path, redirection, env=environ) as process:
            until(lambda: os.path.exists(socket_path) or process.poll() is not None, "a socket")  # noqa: B023
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


def test_server_does_not_wait_for_its_list_to_be_read(tmp_path: Path) -> None:
    names = [f"{'x' * 100}{number}" for number in range(MANY)]
    listeners = [LISTENER.format(name=name, bind=f"unix:{tmp_path / name[99:]}") for name in names]
    configure(tmp_path, *listeners)
    reader, writer = os.pipe()
    with (
        open(reader, "rb"),
        open(writer, "wb") as out,
        run_server(tmp_path, "", stdout=out) as process,
    ):
        last = str(tmp_path / names[-1][99:])
        until(lambda: os.path.exists(last) or process.poll() is not None, "the last listener")
        assert greeting(last).startswith(b"220 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


# --- characters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_unencodable_characters_are_escaped(tmp_path: Path, environ: dict[str, str]) -> None:
    configure(tmp_path, LISTENER.format(name="почта-é", bind=f"unix:{tmp_path}/it"))
    for arguments in (["check", "mail.toml"], ["show", "mail.toml"]):
        done = fastlisten(tmp_path, "", *arguments, **environ)
        assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u043f\\u043e\\u0447\\u0442\\u0430" in done.stdout
    with run_server(
        tmp_path, "", env=clean_environment(**environ), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"\\u043f\\u043e\\u0447\\u0442\\u0430" in process.stdout.readline()
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_toml_is_always_utf_8(tmp_path: Path, encoding: str) -> None:
    configure(tmp_path, LISTENER.format(name="почта-é", bind="127.0.0.1:0"))
    done = fastlisten(tmp_path, "", *COMMANDS["show --toml"], PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert list(tomli.loads(done.stdout.decode())["server"]["listener"]) == ["почта-é"]
