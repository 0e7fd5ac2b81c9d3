"""Addresses and kernel settings that a test machine need not have: scopes, sysctls, packets."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.netns import Namespace, needs_netns
from support.program import program
from support.server import connect, read_some, served
from support.waiting import eventually

from fastlisten.config import loads
from fastlisten.errors import StartError
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all

pytestmark = needs_netns()

ETH_P_ALL = 3


def table(bind: str, *lines: str, name: str = "it") -> str:
    head = f'[server.listener.{name}]\nprotocol = "http"\n'
    head += 'handler = "support.serving_handlers:Echo"\n'
    return head + f"bind = {bind}\n" + "".join(f"{line}\n" for line in lines)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace.made() as made:
        yield made


@pytest.fixture
def peer(host: Namespace) -> Iterator[Namespace]:
    """A host at the other end of a cable; both have link-local addresses."""
    with Namespace.made() as made:
        host.connect(made, "up0", "down0")
        host.ip("addr add fe80::21/64 dev up0 nodad")
        made.ip("addr add fe80::99/64 dev down0 nodad")
        yield made


# --- scopes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("numeric", [False, True])
def test_link_local_address_is_served_on_its_interface(
    host: Namespace, peer: Namespace, numeric: bool
) -> None:
    async def main() -> None:
        scope = str(socket.if_nametoindex("up0")) if numeric else "up0"
        async with served(table(f'"[fe80::21%{scope}]:2525"')) as server:
            listener = server.listeners[0]
            handler: Any = listener.handler
            assert listener.sockets[0].address == "[fe80::21%up0]:2525"
            with peer:
                client = connect_scoped("fe80::21", 2525, "down0")
            with client:
                client.send(b"x")
                assert await read_some(client, 1) == b"x"
                await eventually(lambda: handler.open, "the connection")
                index = socket.if_nametoindex("up0")
                assert handler.open[0].info.peer == f"fe80::99%{index}"
                name = handler.open[0].transport.get_extra_info("peername")
                assert name == ("fe80::99", client.getsockname()[1], 0, index)

    with host:
        asyncio.run(main())


def test_link_local_clients_of_the_wildcard_have_a_scope(host: Namespace, peer: Namespace) -> None:
    async def main() -> None:
        async with served(table('"[::]:2525"')) as server:
            handler: Any = server.listeners[0].handler
            with peer:
                client = connect_scoped("fe80::21", 2525, "down0")
            with client:
                await eventually(lambda: handler.open, "the connection")
                assert handler.open[0].info.peer == f"fe80::99%{socket.if_nametoindex('up0')}"

    with host:
        asyncio.run(main())


def connect_scoped(address: str, port: int, interface: str) -> socket.socket:
    """Connect over an interface of the namespace that the thread is in.

    The server's kernel answers by itself, so this may block the server's loop.
    """
    client = socket.socket(socket.AF_INET6)
    client.settimeout(20)
    client.connect((address, port, 0, socket.if_nametoindex(interface)))
    client.setblocking(False)
    return client


# --- kernel parameters ------------------------------------------------------------------------


@pytest.mark.parametrize("bindv6only", [0, 1])
def test_v6only_does_not_depend_on_the_sysctl(host: Namespace, bindv6only: int) -> None:
    host.sysctl("ipv6.bindv6only", bindv6only)
    with host:
        sockets = open_all(
            loads(table('["[::]:2525", "[::1]:2526", "[::]:2527", "0.0.0.0:2527"]')).listeners
        )
        kept = [
            bound.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            for bound in sockets
            if bound.sock.family == socket.AF_INET6
        ]
        close_all(sockets)
    assert kept == [0, 1, 1]


def test_with_ipv6_disabled_the_wildcard_serves_ipv4(host: Namespace, tmp_path: Path) -> None:
    """The host has IPv6 sockets but no IPv6 addresses."""
    host.sysctl("ipv6.conf.all.disable_ipv6", 1)
    with host, program(tmp_path, table('"[::]:2525"')) as started:
        with socket.create_connection(("127.0.0.1", 2525), 20) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert started.stop() == 0


def test_with_ipv6_disabled_an_ipv6_address_is_a_failure(host: Namespace) -> None:
    host.sysctl("ipv6.conf.all.disable_ipv6", 1)
    with host, pytest.raises(StartError) as caught:
        open_all(loads(table('["127.0.0.1:2525", "[::1]:2525"]')).listeners)
    (failure,) = caught.value.failures
    assert (failure.address, failure.errno) == ("[::1]:2525", errno.EADDRNOTAVAIL)


def test_backlog_above_somaxconn_is_clamped_with_a_warning(host: Namespace, tmp_path: Path) -> None:
    host.sysctl("core.somaxconn", 64)
    with host, program(tmp_path, table('"127.0.0.1:0"', "socket.backlog = 100")) as started:
        assert (
            "server.listener.it.socket.backlog = 100: the kernel clamps this to "
            "net.core.somaxconn = 64" in started.err
        )
        assert started.stop() == 0


def test_reuse_port_lets_two_servers_share_a_port(host: Namespace) -> None:
    """Each has its own accept queue; without the option the second fails."""
    with host:
        shared = table('"127.0.0.1:2525"', "socket.reuse-port = true")
        first = open_all(loads(shared).listeners)
        listen_all(first)
        second = open_all(loads(shared).listeners)
        listen_all(second)
        with pytest.raises(StartError):
            open_all(loads(table('"127.0.0.1:2525"')).listeners)
        close_all(first)
        close_all(second)


def test_reuse_addr_ignores_time_wait(host: Namespace) -> None:
    """A connection that the server closed first keeps the port busy, unless reuse is on."""
    with host:
        with socket.create_server(("127.0.0.1", 2525), reuse_port=False) as old:
            client = socket.create_connection(("127.0.0.1", 2525), 20)
            accepted = old.accept()[0]
            accepted.close()
            assert client.recv(1) == b""
            client.close()
        with pytest.raises(StartError) as caught:
            open_all(loads(table('"127.0.0.1:2525"', "socket.reuse-addr = false")).listeners)
        assert caught.value.failures[0].errno == errno.EADDRINUSE
        # No socket holds it, so no process is named.
        assert caught.value.failures[0].text == "Address already in use"
        sockets = open_all(loads(table('"127.0.0.1:2525"')).listeners)
        close_all(sockets)


# --- packets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_packets_carry_ttl_and_tos(host: Namespace, address: str) -> None:
    """For a dual-stack socket and clients of both families, from the first packet on."""

    async def main() -> None:
        lines = ("socket.ttl = 77", "socket.tos = 72")
        async with served(table('"[::]:2525"', *lines)):
            with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
                tap.settimeout(20)
                with await connect(address, 2525) as client:
                    client.send(b"hello")
                    assert await read_some(client, 5) == b"hello"
                seen: list[tuple[int, int, bytes]] = []
                while not any(b"hello" in payload for *_, payload in seen):
                    packet = tap.recv(65536)
                    if (parts := from_server(packet)) is not None:
                        seen.append(parts)
        assert len(seen) >= 2
        assert {(hops, service) for hops, service, _ in seen} == {(77, 72)}

    with host:
        asyncio.run(main())


def from_server(packet: bytes) -> tuple[int, int, bytes] | None:
    """Return TTL, TOS and TCP segment of a packet from port 2525, None for others."""
    if packet[0] >> 4 == 4:
        hops, service, segment = packet[8], packet[1], packet[(packet[0] & 15) * 4 :]
    else:
        hops = packet[7]
        service = struct.unpack_from("!I", packet)[0] >> 20 & 255
        segment = packet[40:]
    return (hops, service, segment) if segment[:2] == struct.pack("!H", 2525) else None
