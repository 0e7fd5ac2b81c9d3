"""The control socket's file: where it is, who may use it, stale ones and those in use."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.config import listener_table, load_text
from support.waiting import PATIENCE

from fastlisten.config import Config
from fastlisten.runtime.control_socket import socket_file
from fastlisten.runtime.control_socket.socket_file import (
    MAX_PATH,
    ControlSocketError,
    ListeningFile,
    default_path,
    possible_paths,
)
from fastlisten.runtime.sockets.unix_files import REPLACED, bind_file

pytestmark = pytest.mark.usefixtures("descriptors_back")


def config(server: str = "") -> Config:
    return load_text(f"[server]\ndata-directory = '/data'\n{server}\n" + listener_table("it", ""))


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, "/data/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/fastlisten/control.sock"),
        ({"XDG_RUNTIME_DIR": "relative"}, "/data/control.sock"),
        ({"XDG_RUNTIME_DIR": "/u", "RUNTIME_DIRECTORY": "/run/f:/run/g"}, "/run/f/control.sock"),
    ],
)
def test_default_place(environ: dict[str, str], path: str) -> None:
    assert default_path(config(), environ) == path
    set_to = config("control-socket = '/run/mail/c'")
    assert default_path(set_to, environ) == "/run/mail/c"
    assert possible_paths(set_to, environ) == ["/run/mail/c"]


def test_places_of_a_server_with_another_environment() -> None:
    assert possible_paths(config(), {"XDG_RUNTIME_DIR": "/u"}) == [
        "/u/fastlisten/control.sock",
        "/data/control.sock",
        "/run/fastlisten/control.sock",
    ]


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_only_the_owner_may_use_it(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "run" / "control.sock"
    before = os.umask(mask)
    try:
        file = ListeningFile(str(path))
    finally:
        assert os.umask(before) == mask
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    file.close()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_it_belongs_to_the_user_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "control.sock"
    file = ListeningFile(str(path), (54321, 54322))
    for each in (path, path.parent):
        assert (each.stat().st_uid, each.stat().st_gid) == (54321, 54322)
    file.close()

    # That user, who owns the directory, puts somebody else's file in its place.
    victim = tmp_path / "victim"
    victim.touch(0o644)

    def swapped(link: Callable[[Path, Path], object], *arguments: Any) -> Any:
        made = bind_file(*arguments)
        path.unlink()
        link(victim, path)
        return made

    for link in (os.symlink, os.link):
        monkeypatch.setattr(socket_file, "bind_file", partial(swapped, link))
        with pytest.raises(ControlSocketError, match=REPLACED):
            ListeningFile(str(path), (54321, 54322))
        path.unlink()
    found = victim.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o644)


def test_directory_that_somebody_keeps_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_file, "LOCK_TIMEOUT", 0.05)
    path = tmp_path / "control.sock"
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_SH)
        with pytest.raises(ControlSocketError, match=r"has locked its directory for 0\.05 s"):
            ListeningFile(str(path))
    finally:
        os.close(directory)
    ListeningFile(str(path)).close()


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    file = ListeningFile(str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    file.close()


def test_socket_in_use_is_left_alone_and_its_holder_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ListeningFile(str(path))
    with pytest.raises(ControlSocketError, match=rf"in use \(held by PID {os.getpid()}, ") as error:
        ListeningFile(str(path))
    assert str(path) in str(error.value)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    first.close()


def test_one_of_two_servers_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is bound and does not listen yet looks stale to another server."""
    path = tmp_path / "control.sock"
    bound, waits, go_on = threading.Event(), threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        made = bind_file(*arguments)
        if not bound.is_set():
            bound.set()
            assert go_on.wait(PATIENCE)
        return made

    monkeypatch.setattr(socket_file, "bind_file", slow)
    monkeypatch.setattr(socket_file, "LOCK_TIMEOUT", PATIENCE)

    def sleep(seconds: float) -> None:
        waits.set()
        go_on.wait(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    files: list[ListeningFile] = []
    refused: list[str] = []

    def start() -> None:
        try:
            files.append(ListeningFile(str(path)))
        except ControlSocketError as error:
            refused.append(str(error))

    first, second = threading.Thread(target=start), threading.Thread(target=start)
    first.start()
    assert bound.wait(PATIENCE)
    second.start()
    assert waits.wait(PATIENCE)
    go_on.set()
    first.join()
    second.join()
    assert (len(files), len(refused)) == (1, 1)
    for file in files:
        file.close()


def test_file_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ListeningFile(str(path))
    path.unlink()
    second = ListeningFile(str(path))
    first.close()
    assert path.exists()
    second.close()


@pytest.mark.parametrize("obstacle", ["file", "directory", "no directory", "long"])
def test_socket_that_cannot_be_created(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "control.sock"
    said = "in use"
    if obstacle == "file":
        path.write_text("precious")
    elif obstacle == "directory":
        path.mkdir()
    elif obstacle == "no directory":
        path.write_text("precious")
        path, said = path / "control.sock", "File exists|Not a directory"
    else:
        path, said = tmp_path / ("x" * MAX_PATH), "at most 107 bytes"
    with pytest.raises(ControlSocketError, match=said):
        ListeningFile(str(path))
    if obstacle == "file":
        assert path.read_text() == "precious"
