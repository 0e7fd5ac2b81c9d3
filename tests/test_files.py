"""Files named by a user: regular ones are read, up to a limit, and nothing else blocks.

Rules of this file: the files are real: pipes, devices, sockets. Without the tested feature each
test would hang; a limit of CPU time or the end of its thread stops it.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.config import MACHINE, listener_table

from fastlisten.cli import account, check, show
from fastlisten.config import load, loads
from fastlisten.errors import ConfigurationError
from fastlisten.files import read_file, read_stream
from fastlisten.handlers.base import SettingError
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.runtime.tls.certificates import Certificates
from fastlisten.runtime.tls.pem import PemError, read_source

pytestmark = pytest.mark.usefixtures("descriptors_back")

PIPE = "it is a pipe (FIFO), not a regular file"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def why_not(path: str | os.PathLike[str], largest: int = 100) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        read_file(path, largest, "a token")
    assert caught.value.errno
    return caught.value.strerror or ""


def test_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"x" * 100)
    link.symlink_to(path)
    assert read_file(path, 100, "a token") == read_file(link, 100, "a token") == b"x" * 100
    path.write_bytes(b"")
    assert read_file(path, 100, "a token") == b""
    path.write_bytes(bytes(range(256)) * (1 << 14))
    assert read_file(path, 4 << 20, "a token") == path.read_bytes()
    assert why_not(path, (4 << 20) - 1) == "it is larger than 3 MiB, too large for a token"
    assert why_not(path, 1024) == "it is larger than 1 KiB, too large for a token"


def test_file_of_unknown_size_is_limited() -> None:
    assert os.stat("/proc/self/maps").st_size == 0
    assert why_not("/proc/self/maps", 1024) == "it is larger than 1 KiB, too large for a token"
    assert b"/proc" in read_file("/proc/self/mounts", 1 << 20, "a token")


def test_other_file_types_are_rejected(tmp_path: Path, pipe: Path) -> None:
    assert why_not(pipe) == PIPE
    assert why_not(tmp_path) == "Is a directory"
    assert why_not("/dev/zero") == "it is a character device, not a regular file"
    assert why_not(tmp_path / "none") == "No such file or directory"
    assert why_not("/a\0b") == why_not("/a\ud800b") == "invalid file name"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert why_not(loop) == "Too many levels of symbolic links"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        assert why_not(tmp_path / "socket") == "it is a socket, not a regular file"


def test_file_replaced_by_a_pipe_after_the_check(
    tmp_path: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    regular, real = os.stat(tmp_path / "file"), os.stat
    monkeypatch.setattr(os, "stat", lambda path: regular if path == pipe else real(path))
    assert why_not(pipe) == PIPE


# --- every file that the package reads ----------------------------------------------------------


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises((ConfigurationError, PemError, SettingError)) as caught:
        load()
    return str(caught.value)


def test_configuration_macro_and_certificate(tmp_path: Path, pipe: Path) -> None:
    assert refusal(lambda: load(pipe)) == f"{pipe}: cannot be read: {PIPE}"
    text = listener_table("it", f'greeting = "%{{file:{pipe}}}%"')
    assert f"{pipe} cannot be read: {PIPE}" in refusal(lambda: loads(text, machine=MACHINE))
    assert refusal(lambda: read_source(f"file://{pipe}")) == f"cannot be read: {PIPE}"
    pem = f'[certificate.x]\ncert = "file://{pipe}"\nprivate-key = "file://{pipe}"\n'
    config = loads(pem + listener_table("it", ""), machine=MACHINE)
    assert f"cannot be read: {PIPE}" in refusal(lambda: Certificates(config, trial=True))
    config = loads(
        f"server.data-directory = '{tmp_path}'\n"
        + listener_table("it", f"tls.client-ca = '{pipe}'"),
        machine=MACHINE,
    )
    assert f"cannot be read: {PIPE}" in refusal(lambda: Certificates(config, trial=True))


def test_self_signed_certificate(tmp_path: Path, pipe: Path) -> None:
    os.rename(pipe, tmp_path / "self-signed.pem")
    text = f"server.data-directory = '{tmp_path}'\n" + listener_table("it", "")
    config = loads(text, machine=MACHINE)
    assert PIPE in refusal(lambda: Certificates(config, trial=True))
    assert PIPE in refusal(lambda: Certificates(config))


def test_relay_ca(pipe: Path) -> None:
    settings = RelaySettings("relay.example.org", 25, "verify", "us.example.org", ca=str(pipe))
    assert refusal(lambda: Relay(settings)) == f"the authorities cannot be read: {PIPE}"


def test_accounts(pipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    accounts = Accounts(pipe)
    assert accounts.reload() is None
    assert PIPE in caplog.text
    acts: list[Callable[[io.StringIO, io.StringIO], int]] = [
        lambda out, err: account.list_accounts(pipe, out, err),
        lambda out, err: account.add("a@example.org", pipe, out, err),
    ]
    for act in acts:
        out, err = io.StringIO(), io.StringIO()
        assert act(out, err) == 1
        assert err.getvalue() == f"{pipe}: {PIPE}\n"


def test_accounts_replaced_by_a_pipe_while_serving(tmp_path: Path, pipe: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text('[account."a@example.org"]\n')
    accounts = Accounts(path)
    roster = accounts.reload()
    os.replace(pipe, path)
    # On the loop's thread, which it would block.
    assert asyncio.run(asyncio.wait_for(asyncio.to_thread(accounts.reload), 20)) is roster


def test_check_and_show(pipe: Path) -> None:
    acts: list[Callable[[io.StringIO, io.StringIO], int]] = [
        lambda out, err: check.run(str(pipe), out, err),
        lambda out, err: show.run(str(pipe), "text", out, err),
    ]
    for act in acts:
        out, err = io.StringIO(), io.StringIO()
        assert act(out, err) == 2
        assert err.getvalue() == f"error: {pipe}: cannot be read: {PIPE}\n1 error\n"


# --- standard input, redirections and pipes -------------------------------------------------------


def command(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "fastlisten", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


TEXT = listener_table("it", "tls.enable = false")


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_configuration_from_a_pipe(name: str) -> None:
    done = command("check", name, input=TEXT)
    assert (done.returncode, done.stdout) == (0, f"{name}: 1 listener, no errors\n")


def test_redirected_file_is_read_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "mail.toml").write_text(TEXT)
    with open(tmp_path / "mail.toml", "rb") as file:
        file.seek(10)
        done = command("check", "/dev/stdin", stdin=file)
    assert done.returncode == 0, done.stderr


def test_process_substitution() -> None:
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -m fastlisten check <(printf %s "$0")', TEXT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 listener, no errors" in done.stdout, done.stderr


def test_endless_pipe_is_read_up_to_the_limit() -> None:
    with open("/dev/zero", "rb") as zero:
        done = command("check", "/dev/stdin", stdin=zero)
    assert done.returncode == 2
    assert "it is larger than 64 MiB, too large for a configuration" in done.stderr


def test_non_blocking_descriptor_is_waited_for() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    try:
        child = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", "echo late"],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
        )
        os.close(writing)
        assert read_stream(f"/dev/fd/{reading}", 100, "a token") == b"late\n"
        os.waitpid(child, 0)
    finally:
        os.close(reading)


def test_closed_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_stream("/dev/fd/999999999", 100, "a token")
