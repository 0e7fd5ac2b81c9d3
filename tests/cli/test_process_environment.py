"""What a process may lack: a home, a directory, descriptors, devices, a writable file system.

The program serves without it or says in one line what is missing, never with a traceback.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import clean_environment
from support.program import ACCOUNTS, program
from support.waiting import PATIENCE

LISTENER = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
"""

MOUNTS = ("unshare", "--mount", "sh", "-c")

#: A user in no database, to whom the files of this user belong.
STRANGER = ("unshare", "--user", "--map-user=54321", "env", "-u", "HOME")


@functools.cache
def can(*wrapper: str) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can(*MOUNTS), reason="needs root and mount namespaces")
needs_users = pytest.mark.skipif(not can(*STRANGER), reason="needs root and user namespaces")


def serve(
    directory: Path, wrapper: tuple[str, ...], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a server that cannot start."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "fastlisten", "serve", *arguments],
        env=clean_environment(),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accounts.toml").write_text(ACCOUNTS)
    (tmp_path / "data" / "accounts.toml").chmod(0o600)
    head = f'[server]\nhostname = "mx.example.org"\ndata-directory = "{tmp_path / "data"}"\n'
    (tmp_path / "mail.toml").write_text(head + LISTENER)
    return str(tmp_path / "mail.toml")


@pytest.mark.parametrize(
    "wrapper",
    [
        pytest.param('mkdir gone && cd gone && rmdir ../gone && exec "$@"', id="no directory"),
        pytest.param('umask 777 && exec "$@"', id="umask 777"),
        pytest.param('umask 000 && exec "$@"', id="umask 000"),
        pytest.param('ulimit -n 64 && exec "$@"', id="64 files"),
    ],
)
def test_serves_in_a_bare_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapper: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with program(tmp_path, LISTENER, wrapper=("sh", "-c", wrapper, "sh")) as started:
        with socket.create_connection(("127.0.0.1", started.port()), PATIENCE) as client:
            assert client.recv(100).startswith(b"220 ")
        assert started.stop() == 0
        assert "Traceback" not in started.err


def test_created_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    text = LISTENER.replace("tls.enable = false\n", "")
    wrapper = ("sh", "-c", 'umask 000 && exec "$@"', "sh")
    with program(tmp_path, text, wrapper=wrapper) as started:
        assert started.stop() == 0
    assert (tmp_path / "data" / "self-signed.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("files", [16, 19])
def test_too_few_descriptors(tmp_path: Path, config: str, files: int) -> None:
    done = serve(tmp_path, ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"), config)
    assert done.returncode == 3
    assert "Too many open files" in done.stderr


@pytest.mark.netns
@needs_mounts
def test_no_dev_directory(tmp_path: Path, config: str) -> None:
    done = serve(tmp_path, (*MOUNTS, 'mount -t tmpfs none /dev && exec "$@"', "sh"), config)
    assert done.returncode == 3
    assert "cannot start: [Errno 2] open of /dev/null: No such file" in done.stderr


@pytest.mark.netns
@needs_mounts
def test_read_only_file_system(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "mail.toml").write_text(
        f'[server]\ndata-directory = "{tmp_path / "data"}"\n'
        + LISTENER.replace("tls.enable = false\n", "")
    )
    mount = f'mount -t tmpfs -o ro none {tmp_path / "data"} && exec "$@"'
    done = serve(tmp_path, (*MOUNTS, mount, "sh"), "mail.toml")
    assert done.returncode == 2
    assert "cannot keep a self-signed certificate there: Read-only file system" in done.stderr


@pytest.mark.netns
@needs_users
def test_user_without_a_home(tmp_path: Path, config: str) -> None:
    """No directory called ``~`` is created or searched."""
    code = (
        "import fastlisten.config as c; print(c.default_config().process['server.data-directory'])"
    )
    done = subprocess.run(
        [*STRANGER, sys.executable, "-c", code],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("/var/lib/fastlisten\n", "")
    with program(tmp_path, LISTENER, wrapper=STRANGER) as started:
        assert started.stop() == 0
    assert not (tmp_path / "~").exists()
