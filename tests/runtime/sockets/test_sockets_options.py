"""Socket options: what getsockopt says about listening and accepted sockets.

Every row is read back on IPv4, IPv6 and dual-stack sockets, for IPv4 and IPv6 clients, on
connections that a configuration really serves.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.marks import external, needs_ipv6
from support.server import connect, served
from support.waiting import eventually

from fastlisten.config import loads
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all

TCP, IP, IPV6, SOL = socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET
# linux/in.h, linux/in6.h: Python names them from 3.14 on at the earliest.
IP_FREEBIND, IPV6_FREEBIND = 15, 78

#: Each kind of bind, with the loopback clients that reach it.
BINDS = {
    "inet": ("127.0.0.1:0", ("127.0.0.1",)),
    "inet6": ("[::1]:0", ("::1",)),
    "dual": ("[::]:0", ("127.0.0.1", "::1")),
}
KINDS = [pytest.param(kind, marks=() if kind == "inet" else needs_ipv6, id=kind) for kind in BINDS]


class Row(NamedTuple):
    """An option: how it is written, and what the kernel must answer.

    Attributes:
        line: of the listener.
        four: level and name for IPv4.
        six: level and name for IPv6.
        value: the answer.
        accepted: the answer on accepted sockets, if different.
    """

    line: str
    four: tuple[int, int]
    six: tuple[int, int]
    value: int
    accepted: int | None = None


def row(line: str, level: int, name: int, value: int, accepted: int | None = None) -> Row:
    return Row(line, (level, name), (level, name), value, accepted)


TTL, HOPS = (IP, socket.IP_TTL), (IPV6, socket.IPV6_UNICAST_HOPS)
TOS, CLASS = (IP, socket.IP_TOS), (IPV6, socket.IPV6_TCLASS)

ROWS = [
    row("", SOL, socket.SO_REUSEADDR, 1),
    row("socket.reuse-addr = true", SOL, socket.SO_REUSEADDR, 1),
    row("socket.reuse-addr = false", SOL, socket.SO_REUSEADDR, 0),
    row("", SOL, socket.SO_REUSEPORT, 0),
    row("socket.reuse-port = true", SOL, socket.SO_REUSEPORT, 1),
    row("", TCP, socket.TCP_NODELAY, 1),
    row("socket.nodelay = true", TCP, socket.TCP_NODELAY, 1),
    row("socket.nodelay = false", TCP, socket.TCP_NODELAY, 0),
    Row("socket.ttl = 77", TTL, HOPS, 77),
    Row("socket.ttl = 1", TTL, HOPS, 1),
    Row("socket.ttl = 255", TTL, HOPS, 255),
    Row("socket.tos = 72", TOS, CLASS, 72),
    Row('socket.tos = "AF41"', TOS, CLASS, 136),
    row("socket.linger = 0", SOL, socket.SO_LINGER, 1),
    row('socket.linger = "3s"', SOL, socket.SO_LINGER, 0),
    row("", SOL, socket.SO_KEEPALIVE, 0),
    row("socket.keepalive = true", SOL, socket.SO_KEEPALIVE, 1),
    row('socket.keepalive-time = "2m"', TCP, socket.TCP_KEEPIDLE, 120),
    row('socket.keepalive-interval = "15s"', TCP, socket.TCP_KEEPINTVL, 15),
    row("socket.keepalive-probes = 4", TCP, socket.TCP_KEEPCNT, 4),
    row('socket.user-timeout = "1500ms"', TCP, socket.TCP_USER_TIMEOUT, 1500),
    row("socket.priority = 5", SOL, socket.SO_PRIORITY, 5),
    # The kernel derives a priority from the type of service; an explicit one takes precedence.
    row("socket.tos = 16\nsocket.priority = 2", SOL, socket.SO_PRIORITY, 2),
    Row("socket.free-bind = true", (IP, IP_FREEBIND), (IPV6, IPV6_FREEBIND), 1),
    row('socket.send-buffer-size = "32KiB"', SOL, socket.SO_SNDBUF, 2 * 32768),
    row("socket.recv-buffer-size = 40000", SOL, socket.SO_RCVBUF, 2 * 40000),
]


def table(bind: str, lines: str, protocol: str = "smtp") -> str:
    head = f'[server.listener.it]\nprotocol = "{protocol}"\n'
    head += 'handler = "support.serving_handlers:Echo"\n'
    return head + f'bind = "{bind}"\n{lines}\n'


Look = Callable[[Any, bool], Any]


def look(bind: str, clients: tuple[str, ...], lines: str, read: Look) -> list[Any]:
    """Return what `read` gets from the listening socket for each family, then from accepted
    ones."""

    async def main() -> list[Any]:
        async with served(table(bind, lines)) as server:
            listener = server.listeners[0]
            handler: Any = listener.handler
            bound = listener.sockets[0]
            found = [read(bound.sock, ":" in address) for address in clients]
            for address in clients:
                with await connect(address, bound.port):
                    await eventually(lambda: len(handler.open) == 1, "the connection")
                    accepted = handler.open[0].transport.get_extra_info("socket")
                    assert accepted.family is bound.sock.family
                    found.append(read(accepted, ":" in address))
                await eventually(lambda: not handler.open, "its end")
            assert listener.statistics()["option_errors"] == 0
            return found

    return asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.line or f"default {one.four[1]}")
def test_option_is_set_on_listening_and_accepted_sockets(one: Row, kind: str) -> None:
    bind, clients = BINDS[kind]

    def read(sock: Any, six: bool) -> int:
        value: int = sock.getsockopt(*(one.six if six else one.four))
        return value

    wanted = [one.value] * len(clients)
    wanted += [one.value if one.accepted is None else one.accepted] * len(clients)
    assert look(bind, clients, one.line, read) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_only_linger_0_sets_so_linger(kind: str) -> None:
    bind, clients = BINDS[kind]

    def read(sock: Any, six: bool) -> tuple[int, ...]:
        return struct.unpack("=ii", sock.getsockopt(SOL, socket.SO_LINGER, 8))

    assert set(look(bind, clients, "socket.linger = 0", read)) == {(1, 0)}
    assert {on for on, _ in look(bind, clients, "socket.linger = 2", read)} == {0}
    assert {on for on, _ in look(bind, clients, "", read)} == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_congestion_control_is_inherited(kind: str) -> None:
    path = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    available = path.read_text().split()
    if "reno" not in available:
        pytest.skip("this kernel has no second congestion control algorithm")
    bind, clients = BINDS[kind]

    def read(sock: Any, six: bool) -> bytes:
        answer: bytes = sock.getsockopt(TCP, socket.TCP_CONGESTION, 16)
        return answer.rstrip(b"\0")

    assert set(look(bind, clients, 'socket.congestion = "reno"', read)) == {b"reno"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "name", "most"),
    [
        ("send-buffer-size", socket.SO_SNDBUF, "wmem_max"),
        ("recv-buffer-size", socket.SO_RCVBUF, "rmem_max"),
    ],
)
def test_buffer_sizes(kind: str, key: str, name: int, most: str) -> None:
    """Twice the size asked for, at most twice the kernel's maximum, at least its minimum."""
    bind, clients = BINDS[kind]
    largest = int(Path("/proc/sys/net/core", most).read_text())

    def read(sock: Any, six: bool) -> int:
        value: int = sock.getsockopt(SOL, name)
        return value

    for asked in (1, 20_000, largest, largest + 1, 2**30 - 1):
        with socket.socket(socket.AF_INET if kind == "inet" else socket.AF_INET6) as plain:
            plain.setsockopt(SOL, name, asked)
            given = plain.getsockopt(SOL, name)
        assert set(look(bind, clients, f"socket.{key} = {asked}", read)) == {given}
        assert given == 2 * min(asked, largest) or asked == 1


@needs_ipv6
def test_low_bits_of_tos_are_left_to_the_kernel() -> None:
    def read(sock: Any, six: bool) -> int:
        value: int = sock.getsockopt(*(CLASS if six else TOS))
        return value

    bind, clients = BINDS["dual"]
    assert {value & ~3 for value in look(bind, clients, "socket.tos = 75", read)} == {72}
    warnings = loads(table(bind, "socket.tos = 75")).warnings
    assert any("the kernel sets the low two bits itself" in one.message for one in warnings)


@needs_ipv6
def test_all_options_at_once() -> None:
    """No option must undo another."""
    chosen = [
        one
        for one in ROWS
        if one.line and "false" not in one.line and not re.search(r"linger|ttl = 1$|tos", one.line)
    ]
    chosen = list({one.line.partition(" =")[0]: one for one in chosen}.values())
    chosen += [one for one in ROWS if one.line == "socket.tos = 72"]
    lines = "\n".join(one.line for one in chosen)
    bind, clients = BINDS["dual"]

    def read(sock: Any, six: bool) -> dict[str, int]:
        return {one.line: sock.getsockopt(*(one.six if six else one.four)) for one in chosen}

    wanted = {one.line: one.value for one in chosen}
    assert look(bind, clients, lines, read) == [wanted] * 4


@needs_ipv6
def test_free_bind_allows_an_address_of_no_interface() -> None:
    # RFC 5737, RFC 3849: addresses for documentation.
    text = table('", "', "socket.free-bind = true").replace(
        '"", ""', '["192.0.2.77:0", "[2001:db8::77]:0"]'
    )
    sockets = open_all(loads(text).listeners)
    try:
        listen_all(sockets)
        assert [bound.sock.getsockname()[0] for bound in sockets] == ["192.0.2.77", "2001:db8::77"]
    finally:
        close_all(sockets)


@pytest.mark.parametrize("kind", KINDS)
def test_defer_accept_waits_for_data(kind: str) -> None:
    """A silent client that came first is accepted after one that has sent something."""
    bind, clients = BINDS[kind]
    text = table(bind, 'socket.defer-accept = "5s"', protocol="http")

    async def main() -> None:
        async with served(text) as server:
            listener = server.listeners[0]
            bound = listener.sockets[0]
            handler: Any = listener.handler
            with socket.socket() as plain:
                # The kernel keeps a number of retransmissions instead of seconds, and rounds.
                plain.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 5)
                kept = plain.getsockopt(TCP, socket.TCP_DEFER_ACCEPT)
            assert bound.sock.getsockopt(TCP, socket.TCP_DEFER_ACCEPT) == kept > 0
            assert len(bound.accepted) == 0
            for address in clients:
                with (
                    await connect(address, bound.port) as silent,
                    await connect(address, bound.port) as speaks,
                ):
                    speaks.send(b"x")
                    await eventually(lambda: handler.open, "the one that speaks")
                    (first,) = handler.open
                    assert first.transport.get_extra_info("peername")[1] == speaks.getsockname()[1]
                    silent.send(b"y")
                    await eventually(lambda: len(handler.open) == 2, "the other one")
                await eventually(lambda: not handler.open, "their end")

    asyncio.run(main())


@external("ss")
def test_backlog_is_the_accept_queue_of_the_kernel() -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    wanted = {}
    text = ""
    for index, backlog in enumerate((None, 1, 77, most, most + 1)):
        line = "" if backlog is None else f"socket.backlog = {backlog}"
        text += table("127.0.0.1:0", line).replace("listener.it", f"listener.l{index}")
        wanted[f"l{index}"] = min(1024 if backlog is None else backlog, most)
    sockets = open_all(loads(text).listeners)
    try:
        listen_all(sockets)
        done = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True)
        # State Recv-Q Send-Q Local Peer; Send-Q of a listening socket is its backlog.
        queues = {line.split()[3]: int(line.split()[2]) for line in done.stdout.splitlines()}
        assert {bound.listener: queues[bound.address] for bound in sockets} == wanted
    finally:
        close_all(sockets)
    warnings = loads(text).warnings
    assert [one.key for one in warnings] == ["server.listener.l4.socket.backlog"]


@needs_ipv6
def test_only_the_priority_is_set_per_connection() -> None:
    """Nothing else of all options in the format, and the priority once per connection."""
    lines = "\n".join(
        ("socket.ttl = 9", "socket.tos = 8", "socket.keepalive = true", "socket.linger = 0")
    )
    for bind, _ in BINDS.values():
        for priority, wanted in (("", 0), ("socket.priority = 3", 1)):
            sockets = open_all(loads(table(bind, f"{lines}\n{priority}")).listeners)
            close_all(sockets)
            assert len(sockets[0].accepted) == wanted


def test_options_of_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    lines = "socket.send-buffer-size = 20000\nsocket.ttl = 9\nsocket.linger = 0\nsocket.tos = 8"
    sockets = open_all(loads(table(f"unix:{path}", lines)).listeners)
    try:
        listen_all(sockets)
        assert sockets[0].sock.getsockopt(SOL, socket.SO_SNDBUF) == 40000
        assert sockets[0].sock.getsockopt(SOL, socket.SO_REUSEADDR) == 0
        assert len(sockets[0].accepted) == 0
    finally:
        close_all(sockets)
