"""The loop's create_unix_server, compared with asyncio's.

Rules of this file: paths are noted without their directory, which differs between the plays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loop_worlds import play_on, same_on_asyncio
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.world import Recorder, World

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: From this version on, asyncio's servers remove their file at close by default.
HAS_CLEANUP = sys.version_info >= (3, 13)


@pytest.fixture
def folder() -> Iterator[str]:
    """A directory whose name is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield name


async def echo(world: World, name: Any) -> bytes:
    """Return what an echoing server at a path answers."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    with sock:
        await world.patience(world.loop.sock_connect(sock, name))
        await world.loop.sock_sendall(sock, b"hello")
        answer = await world.patience(world.loop.sock_recv(sock, 100))
    assert isinstance(answer, bytes)
    return answer


def echoing(world: World) -> Recorder:
    return Recorder(world, {"data_received": lambda p, data: p.transport.write(data)})


@pytest.mark.parametrize("kind", ["str", "bytes", "path", "abstract", "abstract-bytes"])
def test_path_types(our_loop_factory: LoopFactory, kind: str, folder: str) -> None:
    name: Any = {
        "str": f"{folder}/s",
        "bytes": f"{folder}/s".encode(),
        "path": Path(folder, "s"),
        "abstract": f"\0{folder}/s",
        "abstract-bytes": f"\0{folder}/s".encode(),
    }[kind]

    async def script(world: World) -> None:
        server = await world.loop.create_unix_server(lambda: echoing(world), name)
        async with server:
            sock = server.sockets[0]
            world.note("socket", sock.family, sock.type, sock.getsockname(), sock.gettimeout())
            world.note("answer", await echo(world, os.fspath(name)))
            await world.until("connection_lost")
            transport = world.transports[0]
            world.note("names", *map(transport.get_extra_info, ("peername", "sockname")))
        world.note("left", os.listdir(folder), server.sockets)
        if os.path.exists(f"{folder}/s"):
            os.unlink(f"{folder}/s")

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"hello") in log


@pytest.mark.parametrize(
    "what", ["nothing", "a dead socket", "a live socket", "a file", "a directory", "no directory"]
)
def test_existing_file_at_the_path(
    our_loop_factory: LoopFactory, what: str, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio removes sockets, whether they are served or not, and nothing else."""

    async def script(world: World) -> None:
        name = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as other:
            if what in ("a dead socket", "a live socket"):
                other.bind(name)
                if what == "a live socket":
                    other.listen()
            elif what == "a file":
                Path(name).touch()
            elif what == "a directory":
                os.mkdir(name)
            elif what == "no directory":
                name = f"{folder}/none/s"
            try:
                server = await world.loop.create_unix_server(lambda: echoing(world), name)
            except OSError as exc:
                world.note("error", type(exc).__name__, exc.errno, str(exc))
            else:
                async with server:
                    world.note("mode", stat.S_ISSOCK(os.stat(name).st_mode))
                    world.note("answer", await echo(world, name))
                    await world.until("connection_lost")
        if what == "a directory":
            os.rmdir(name)
        elif os.path.exists(name):
            os.unlink(name)

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"hello") in log or log[0][0] == "error"
    assert caplog.records == []


def test_stale_socket_cannot_be_removed(
    our_loop_factory: LoopFactory, folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """It is logged; then bind fails."""

    def refuse(path: Any) -> None:
        raise PermissionError(1, "no")

    async def script(world: World) -> None:
        with pytest.raises(OSError, match=r"Address .*/s' is already in use"):
            await world.loop.create_unix_server(lambda: echoing(world), f"{folder}/s")
        world.note("done")

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{folder}/s")
        monkeypatch.setattr(os, "remove", refuse)
        same_on_asyncio(script, our_loop_factory)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "s", "sock": "unix"},
        {"sock": "inet"},
        {"sock": "datagram"},
        {"path": 5},
        {"path": "s" * 200},
        {"path": "s", "ssl": True},
        {"path": "s", "ssl_handshake_timeout": 1},
        {"path": "s", "ssl_shutdown_timeout": 1},
        {"path": "s", "no_such": 1},
    ],
    ids=str,
)
def test_errors_are_those_of_asyncio(
    our_loop_factory: LoopFactory,
    arguments: dict[str, Any],
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have the same class, errno and text; nothing stays open."""
    kinds = {
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
        "inet": (socket.AF_INET, socket.SOCK_STREAM),
        "datagram": (socket.AF_UNIX, socket.SOCK_DGRAM),
    }
    monkeypatch.chdir(folder)

    async def script(world: World) -> None:
        mine = dict(arguments)
        sock = socket.socket(*kinds[mine["sock"]]) if "sock" in mine else None
        if sock is not None:
            mine["sock"] = sock
        try:
            await world.loop.create_unix_server(lambda: echoing(world), **mine)
        except Exception as exc:
            # Incidental words: the function's name, the socket's descriptor.
            text = "" if "no_such" in mine or "sock" in mine else str(exc)
            world.note("error", type(exc).__name__, getattr(exc, "errno", None), text)
        finally:
            if sock is not None:
                sock.close()

    log = same_on_asyncio(script, our_loop_factory)
    assert log[0][0] == "error"


def test_given_socket(our_loop_factory: LoopFactory, folder: str) -> None:
    async def script(world: World) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{folder}/s")
        server = await world.loop.create_unix_server(
            lambda: echoing(world), sock=sock, start_serving=False
        )
        world.note("serving", server.is_serving())
        await server.start_serving()
        world.note("answer", await echo(world, f"{folder}/s"))
        await world.until("connection_lost")
        server.close()
        await world.patience(server.wait_closed())
        world.note("left", os.listdir(folder), sock.fileno())
        if os.path.exists(f"{folder}/s"):
            os.unlink(f"{folder}/s")

    same_on_asyncio(script, our_loop_factory)


@pytest.mark.parametrize("meanwhile", ["nothing", "removed", "replaced"])
@pytest.mark.parametrize("wanted", [True, False])
def test_cleanup_socket(
    our_loop_factory: LoopFactory, wanted: bool, meanwhile: str, folder: str
) -> None:
    """The file is removed with the server if asked for, and only if it is still the server's."""

    async def script(world: World) -> None:
        name = f"{folder}/s"
        create: Any = world.loop.create_unix_server
        server = await create(lambda: echoing(world), name, cleanup_socket=wanted)
        with socket.socket(socket.AF_UNIX) as other:
            if meanwhile != "nothing":
                # Renamed, so that the new file can't have the old one's inode.
                os.rename(name, f"{folder}/old")
            if meanwhile == "replaced":
                other.bind(name)
            server.close()
            await world.patience(server.wait_closed())
        world.note("left", sorted(os.listdir(folder)))
        for one in os.listdir(folder):
            os.unlink(f"{folder}/{one}")

    log = (
        same_on_asyncio(script, our_loop_factory)
        if HAS_CLEANUP
        else play_on(script, our_loop_factory)
    )
    left = {"nothing": ["s"], "removed": ["old"], "replaced": ["old", "s"]}[meanwhile]
    assert log == [("left", [] if wanted and meanwhile == "nothing" else left)]


@pytest.mark.parametrize("what", ["abstract", "gone"])
def test_cleanup_without_a_file(our_loop_factory: LoopFactory, what: str, folder: str) -> None:
    async def script(world: World) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"\0{folder}" if what == "abstract" else f"{folder}/s")
        if what == "gone":
            os.unlink(f"{folder}/s")
        create: Any = world.loop.create_unix_server
        server = await create(lambda: echoing(world), sock=sock, cleanup_socket=True)
        server.close()
        await world.patience(server.wait_closed())
        world.note("left", os.listdir(folder))

    log = (
        same_on_asyncio(script, our_loop_factory)
        if HAS_CLEANUP
        else play_on(script, our_loop_factory)
    )
    assert log == [("left", [])]


def test_file_cannot_be_removed_at_close(
    our_loop_factory: LoopFactory, folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    def refuse(path: Any) -> None:
        raise PermissionError(1, "no")

    async def script(world: World) -> None:
        create: Any = world.loop.create_unix_server
        server = await create(lambda: echoing(world), f"{folder}/s", cleanup_socket=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refuse)
            server.close()
        await world.patience(server.wait_closed())

    play_on(script, our_loop_factory)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("asyncio", logging.ERROR)
    assert "Unable to clean up listening UNIX socket" in record.getMessage()


def test_unix_server_with_tls(our_loop_factory: LoopFactory, folder: str) -> None:
    async def script(world: World) -> None:
        server = await world.loop.create_unix_server(
            lambda: echoing(world), f"{folder}/s", ssl=server_context(), ssl_handshake_timeout=10
        )
        reader, writer = await asyncio.open_unix_connection(
            f"{folder}/s", ssl=client_context(), server_hostname=HOST
        )
        writer.write(b"hello")
        world.note("answer", await world.patience(reader.readexactly(5)))
        world.note(
            "tls", isinstance(world.transports[0].get_extra_info("ssl_object"), ssl.SSLObject)
        )
        writer.close()
        await world.patience(writer.wait_closed())
        await world.until("connection_lost")
        server.close()
        await world.patience(server.wait_closed())
        if os.path.exists(f"{folder}/s"):
            os.unlink(f"{folder}/s")

    log = same_on_asyncio(script, our_loop_factory)
    assert ("tls", True) in log
