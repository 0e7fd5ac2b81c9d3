"""`unix:` binds: the socket's file, its owner and mode, and its removal."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.program import program
from support.server import served
from support.waiting import eventually

from fastlisten.config import loads
from fastlisten.errors import SocketFailure, StartError
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")


def text(path: Path, *lines: str) -> str:
    head = '[server.listener.it]\nprotocol = "smtp"\n'
    head += 'handler = "support.serving_handlers:LazyEcho"\n'
    return head + f'bind = "unix:{path}"\n' + "".join(f"{line}\n" for line in lines)


def bound(path: Path, *lines: str) -> BoundSocket:
    """Return the listening socket of a configuration."""
    sockets = open_all(loads(text(path, *lines)).listeners)
    listen_all(sockets)
    return sockets[0]


def failure(path: Path, *lines: str) -> SocketFailure:
    """Return the one failure of opening a configuration's socket."""
    with pytest.raises(StartError) as caught:
        close_all(open_all(loads(text(path, *lines)).listeners))
    (only,) = caught.value.failures
    return only


@pytest.fixture
def umask() -> Iterator[None]:
    """Run with a known umask."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", ["0600", "0660", "0666", "0700"])
def test_mode_of_the_file(tmp_path: Path, umask: None, mode: str) -> None:
    path = tmp_path / "s"
    sock = bound(path, f'socket.mode = "{mode}"')
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert permissions(path) == int(mode, 8)
    sock.close()


def test_umask_applies_without_a_mode(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "s"
    sock = bound(path)
    assert permissions(path) == 0o750
    sock.close()


def test_file_is_never_more_open_than_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between bind(2) and chmod(2) anyone could connect."""
    before = os.umask(0)
    seen = []
    chmod = os.chmod

    def watched(path: str, mode: int) -> None:
        seen.append(permissions(Path(path)))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", watched)
    try:
        sock = bound(tmp_path / "s", 'socket.mode = "0600"')
    finally:
        os.umask(before)
    assert seen == [0o600]
    sock.close()


@root_only
def test_owner_and_group_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    user, group = pwd.getpwall()[-1], grp.getgrall()[-1]
    sock = bound(path, f'socket.user = "{user.pw_name}"', f'socket.group = "{group.gr_name}"')
    assert (path.stat().st_uid, path.stat().st_gid) == (user.pw_uid, group.gr_gid)
    sock.close()
    sock = bound(path, 'socket.user = "12345"', 'socket.group = "54321"')
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
    sock.close()


@pytest.mark.parametrize(
    ("line", "name"),
    [('socket.user = "nosuchuser"', "nosuchuser"), ('socket.group = "nosuch"', "nosuch")],
)
def test_unknown_owners_are_failures(tmp_path: Path, line: str, name: str) -> None:
    found = failure(tmp_path / "s", line)
    assert found.operation == line.partition(" =")[0]
    assert found.value == name
    assert found.text == "does not exist on this system"
    assert not (tmp_path / "s").exists()


def test_owner_that_cannot_be_set_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chown", refuse)
    found = failure(tmp_path / "s", 'socket.user = "0"')
    assert found.errno == errno.EPERM
    assert found.operation == "socket.user/group"
    assert not (tmp_path / "s").exists()


# --- existing files ---------------------------------------------------------------------------


def test_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    before = path.stat().st_ino
    sock = bound(path)
    assert path.stat().st_ino != before or stat.S_ISSOCK(path.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    sock.close()
    assert not path.exists()


def test_live_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        before = path.stat().st_ino
        found = failure(path)
        assert found.errno == errno.EADDRINUSE
        name = Path("/proc/self/comm").read_text().strip()
        assert found.text == f"Address already in use (held by PID {os.getpid()}, {name})"
        assert path.stat().st_ino == before


def test_live_socket_with_a_full_queue_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    waiting = []
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen(0)
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        assert failure(path).errno == errno.EADDRINUSE
        assert path.exists()
        for client in waiting:
            client.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_other_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    found = failure(path)
    assert found.errno == errno.EADDRINUSE
    assert path.read_text() == "precious" if kind == "file" else path.is_dir()


def test_missing_directory_is_a_failure(tmp_path: Path) -> None:
    found = failure(tmp_path / "no" / "s")
    assert (found.operation, found.errno) == ("bind", errno.ENOENT)


# --- at the end -------------------------------------------------------------------------------


def test_file_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with served(text(path)) as server:
            assert server.listeners[0].sockets[0].address == f"unix:{path}"
            assert path.exists()
        assert not path.exists()

    asyncio.run(main())


def test_file_that_replaced_the_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = bound(path)
    path.rename(tmp_path / "moved")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        sock.close()
        assert path.exists()


def test_file_already_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = bound(path)
    path.unlink()
    sock.close()
    assert sock.sock.fileno() == -1


def test_file_is_removed_when_another_listener_fails(
    tmp_path: Path, descriptors_back: None
) -> None:
    path = tmp_path / "s"
    # RFC 5737: an address for documentation.
    other = text(path).replace("listener.it", "listener.other")
    other = other.replace(f"unix:{path}", "192.0.2.77:2525")
    with pytest.raises(StartError) as caught:
        open_all(loads(text(path) + other).listeners)
    assert [one.errno for one in caught.value.failures] == [errno.EADDRNOTAVAIL]
    assert not path.exists()


# --- served -----------------------------------------------------------------------------------


def test_clients_are_served(tmp_path: Path) -> None:
    """Such a client has neither address nor port."""
    path = tmp_path / "s"

    async def main() -> None:
        async with served(text(path)) as server:
            handler: Any = server.listeners[0].handler
            reader, writer = await asyncio.open_unix_connection(path)
            assert await reader.readline() == b"hello\n"
            writer.write(b"hi\n")
            assert await reader.readline() == b"hi\n"
            await eventually(lambda: handler.open, "the protocol")
            info = handler.open[0].info
            assert (info.listener, info.peer, info.port) == ("it", "", 0)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_program_serves_mail_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = f'[server.listener.it]\nprotocol = "smtp"\nbind = "unix:{path}"\n'
    with program(tmp_path, config + 'socket.mode = "0600"\n') as started:
        assert started.addresses == {"it": [f"unix:{path}"]}
        assert permissions(path) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            lines = client.makefile("rwb")
            assert lines.readline() == b"220 mx.example.org ESMTP\r\n"
            for command, code in (
                ("HELO c.example.com", b"250"),
                ("MAIL FROM:<a@example.com>", b"250"),
                ("RCPT TO:<alice@example.org>", b"250"),
                ("DATA", b"354"),
                ("Subject: x\r\n\r\nbody\r\n.", b"250"),
                ("QUIT", b"221"),
            ):
                lines.write(f"{command}\r\n".encode())
                lines.flush()
                assert lines.readline()[:3] == code
            lines.close()
        assert started.stop() == 0
        assert not path.exists()
        (message,) = started.messages()
    assert message.endswith(b"Subject: x\r\n\r\nbody\r\n")
    assert b"Received: from c.example.com\r\n" in message
