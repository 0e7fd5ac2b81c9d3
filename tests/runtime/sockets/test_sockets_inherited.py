"""`fd:` binds: inherited descriptors are examined, and rejected if they are not usable."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.marks import needs_ipv6
from support.program import program
from support.server import connect, read_some, served
from support.waiting import eventually

from fastlisten.config import loads
from fastlisten.errors import SocketFailure, StartError
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all


def text(fd: int, *lines: str) -> str:
    head = '[server.listener.it]\nprotocol = "http"\nhandler = "support.serving_handlers:Echo"\n'
    return head + f'bind = "fd:{fd}"\n' + "".join(f"{line}\n" for line in lines)


def handed_over(sock: socket.socket) -> int:
    """Return a descriptor that no Python object owns."""
    return sock.detach()


def failure(fd: int) -> SocketFailure:
    """Return the one failure of opening and listening on a descriptor."""
    with pytest.raises(StartError) as caught:
        listen_all(open_all(loads(text(fd)).listeners))
    (only,) = caught.value.failures
    assert (only.listener, only.address) == ("it", f"fd:{fd}")
    return only


FAMILIES = {
    "inet": (socket.AF_INET, "127.0.0.1"),
    "inet6": (socket.AF_INET6, "::1"),
    "dual": (socket.AF_INET6, "::"),
}


@pytest.mark.parametrize("listening", [True, False], ids=["listening", "bound"])
@pytest.mark.parametrize(
    "family",
    ["inet", pytest.param("inet6", marks=needs_ipv6), pytest.param("dual", marks=needs_ipv6)],
)
def test_tcp_sockets_are_served(family: str, listening: bool, descriptors_back: None) -> None:
    number, address = FAMILIES[family]

    async def main() -> None:
        made = socket.socket(number)
        if number == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(family == "inet6"))
        made.bind((address, 0))
        port = made.getsockname()[1]
        if listening:
            made.listen()
        async with served(text(handed_over(made))) as server:
            bound = server.listeners[0].sockets[0]
            shown = f"[{address}]" if ":" in address else address
            assert bound.address == f"{shown}:{port}"
            assert not os.get_inheritable(bound.sock.fileno())
            for client in ("127.0.0.1", "::1") if family == "dual" else (address,):
                with await connect(client, port) as speaker:
                    speaker.send(b"hello")
                    assert await read_some(speaker, 5) == b"hello"

    asyncio.run(main())


@pytest.mark.parametrize("listening", [True, False], ids=["listening", "bound"])
def test_unix_sockets_are_served(tmp_path: Path, listening: bool) -> None:
    """Their files belong to the process that made them."""
    path = tmp_path / "s"

    async def main() -> None:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        if listening:
            made.listen()
        async with served(text(handed_over(made))) as server:
            assert server.listeners[0].sockets[0].address == f"unix:{path}"
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
        assert path.exists()

    asyncio.run(main())


def test_options_set_after_bind_are_applied() -> None:
    """Those set before bind are up to the process that bound the socket."""
    lines = ("socket.ttl = 33", "socket.keepalive = true", "socket.reuse-port = true")

    async def main() -> None:
        made = socket.socket()
        made.bind(("127.0.0.1", 0))
        async with served(text(handed_over(made), *lines)) as server:
            handler: Any = server.listeners[0].handler
            bound = server.listeners[0].sockets[0]
            with await connect("127.0.0.1", bound.port):
                await eventually(lambda: handler.open, "the connection")
                accepted = handler.open[0].transport.get_extra_info("socket")
                for sock in (bound.sock, accepted):
                    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 33
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0

    asyncio.run(main())


# --- rejected ---------------------------------------------------------------------------------


def test_closed_descriptor_is_rejected() -> None:
    fd = handed_over(socket.socket())
    os.close(fd)
    found = failure(fd)
    assert (found.operation, found.errno) == ("fd", errno.EBADF)
    assert found.text == "Bad file descriptor"


def no_socket() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def datagrams() -> int:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made.detach()


def unix_datagrams() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()


def packets() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()


def netlink() -> int:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach()


def nowhere() -> int:
    return socket.socket().detach()


def nowhere_unix() -> int:
    return socket.socket(socket.AF_UNIX).detach()


@pytest.mark.parametrize(
    ("make", "number", "words"),
    [
        (no_socket, errno.ENOTSOCK, "Socket operation on non-socket"),
        (datagrams, errno.EPROTOTYPE, "not a TCP or Unix stream socket"),
        (unix_datagrams, errno.EPROTOTYPE, "not a TCP or Unix stream socket"),
        (packets, errno.EPROTOTYPE, "not a TCP or Unix stream socket"),
        (netlink, errno.EPROTOTYPE, "not a TCP or Unix stream socket"),
        # listen(2) would let the kernel choose its port.
        (nowhere, errno.EDESTADDRREQ, "not bound to an address"),
        (nowhere_unix, errno.EDESTADDRREQ, "not bound to an address"),
    ],
)
def test_descriptor_without_a_bound_stream_socket_is_rejected(
    make: Callable[[], int], number: int, words: str
) -> None:
    fd = make()
    found = failure(fd)
    assert (found.operation, found.errno, found.text) == ("fd", number, words)
    # It still belongs to its owner.
    os.close(fd)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=20)
        accepted = listening.accept()[0]
        with client, accepted:
            yield client, accepted


@pytest.mark.parametrize("side", [0, 1])
def test_connected_socket_is_rejected(pair: tuple[socket.socket, socket.socket], side: int) -> None:
    fd = pair[side].fileno()
    found = failure(fd)
    assert (found.operation, found.errno) == ("fd", errno.EISCONN)
    assert found.text == "a connection, not a listening socket"
    os.fstat(fd)


def test_failure_is_reported_with_all_others(descriptors_back: None) -> None:
    fd = no_socket()
    # RFC 5737: an address for documentation.
    other = text(fd).replace(f"fd:{fd}", "192.0.2.77:2525").replace("listener.it", "listener.b")
    with pytest.raises(StartError) as caught:
        open_all(loads(text(fd) + other).listeners)
    os.close(fd)
    assert [one.errno for one in caught.value.failures] == [errno.EADDRNOTAVAIL, errno.ENOTSOCK]


def test_inherited_socket_does_not_listen_when_another_bind_fails() -> None:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    port = made.getsockname()[1]
    fd = handed_over(made)
    text_of_both = text(fd) + text(fd).replace(f"fd:{fd}", "192.0.2.77:2525").replace(
        "listener.it", "listener.b"
    )
    with pytest.raises(StartError):
        close_all(open_all(loads(text_of_both).listeners))
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_program_inherits_descriptors_from_its_parent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        fd = made.fileno()
        config = f'[server.listener.it]\nprotocol = "smtp"\nbind = "fd:{fd}"\n'
        with program(tmp_path, config, pass_fds=[fd]) as started:
            address = "{}:{}".format(*made.getsockname())
            assert started.addresses == {"it": [address]}
            with socket.create_connection(made.getsockname(), timeout=20) as client:
                assert client.recv(100) == b"220 mx.example.org ESMTP\r\n"
            assert started.stop() == 0
