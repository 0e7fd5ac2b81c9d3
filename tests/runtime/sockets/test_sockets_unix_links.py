"""`unix:` binds in a directory of another user, who puts a link in the place of the new socket.

Rules of this file: the other file shows whether it was touched. The time of its last change
(st_ctime) does so even if it is given what it has, so the tests need not be root.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastlisten.config import loads
from fastlisten.errors import StartError
from fastlisten.runtime.sockets import opening_bind
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import open_all
from fastlisten.runtime.sockets.reopening import reopen
from fastlisten.runtime.sockets.unix_files import REPLACED, bind_file

pytestmark = pytest.mark.usefixtures("descriptors_back")

Made = tuple[str, int, int]


class Swapped(socket.socket):
    """A socket whose file is another one as soon as it is bound.

    Attributes:
        put: what puts it there; given the path.
    """

    put: Callable[[str], None]

    def bind(self, address: Any) -> None:
        super().bind(address)
        os.unlink(address)
        self.put(address)


def text(path: Path, *lines: str) -> str:
    head = f'[server.listener.it]\nprotocol = "smtp"\nbind = "unix:{path}"\ntls.enable = false\n'
    return head + "".join(f"{line}\n" for line in lines)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that stays as it is."""
    path = tmp_path / "victim"
    path.touch(0o600)
    return path


def own_ids() -> tuple[str, str]:
    return f'socket.user = "{os.getuid()}"', f'socket.group = "{os.getgid()}"'


def linked(path: Path, victim: Path) -> None:
    path.unlink()
    path.symlink_to(victim)


def test_link_is_found_when_the_socket_is_bound(tmp_path: Path, victim: Path) -> None:
    before = victim.stat()
    for link in (os.symlink, os.link):
        with Swapped(socket.AF_UNIX) as sock:
            sock.put = partial(link, victim)
            with pytest.raises(OSError, match=REPLACED):
                bind_file(sock, str(tmp_path / "s"), 0o666)
        (tmp_path / "s").unlink()
    assert victim.stat().st_mode == before.st_mode


def test_link_to_another_socket_is_found(tmp_path: Path) -> None:
    """It has two names then."""
    with socket.socket(socket.AF_UNIX) as other, Swapped(socket.AF_UNIX) as sock:
        other.bind(str(tmp_path / "other"))
        before = os.stat(tmp_path / "other").st_mode
        sock.put = lambda path: os.link(tmp_path / "other", path)
        with pytest.raises(OSError, match=REPLACED):
            bind_file(sock, str(tmp_path / "s"), 0o600)
        assert os.stat(tmp_path / "other").st_mode == before


@pytest.mark.parametrize("lines", [own_ids(), own_ids()[:1], own_ids()[1:]])
def test_link_is_not_given_away(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]
) -> None:
    """After the socket was bound, and before its owner is changed."""
    path = tmp_path / "s"
    before = victim.stat()

    def swapped(sock: socket.socket, name: str, mode: int | None) -> Made:
        made = bind_file(sock, name, mode)
        linked(path, victim)
        return made

    monkeypatch.setattr(opening_bind, "bind_file", swapped)
    with pytest.raises(StartError) as caught:
        close_all(open_all(loads(text(path, *lines)).listeners))
    (failure,) = caught.value.failures
    assert (failure.operation, failure.errno) == ("socket.user/group", errno.ESTALE)
    assert failure.text == REPLACED
    assert victim.stat().st_ctime_ns == before.st_ctime_ns
    assert path.is_symlink()


def test_link_is_not_followed_by_a_reload(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "s"
    (settings,) = loads(text(path)).listeners
    (renewed,) = loads(text(path, 'socket.mode = "0666"')).listeners
    sockets = open_all([settings])
    before = victim.stat()
    try:
        reopen([(settings, sockets)], [renewed])
        assert path.stat().st_mode & 0o777 == 0o666
        linked(path, victim)
        with pytest.raises(StartError) as caught:
            reopen([(renewed, sockets)], [settings])
        assert [failure.text for failure in caught.value.failures] == [REPLACED]
    finally:
        close_all(sockets)
    assert victim.stat().st_ctime_ns == before.st_ctime_ns
