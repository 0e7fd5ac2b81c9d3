"""From settings to setsockopt calls: which, in what order, for which sockets, with which bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from support.config import listener

from fastlisten.config import SocketSetting, socket_options
from fastlisten.option import SocketOption

ALL = """
socket.reuse-port = true
socket.free-bind = true
socket.ttl = 77
socket.tos = "AF21"
socket.priority = 5
socket.send-buffer-size = "64KiB"
socket.recv-buffer-size = 40000
socket.linger = 0
socket.keepalive = true
socket.keepalive-time = "61s"
socket.keepalive-interval = "7s"
socket.keepalive-probes = 4
socket.user-timeout = "1500ms"
socket.defer-accept = "5s"
socket.congestion = "reno"
protocol = "http"
"""


def symbols(settings: tuple[SocketSetting, ...], phase: str) -> list[str]:
    return [each.call.symbol for each in settings if each.call.phase == phase]


def number(value: int) -> bytes:
    return struct.pack("=i", value)


def test_defaults_set_two_options() -> None:
    settings = socket_options(listener(""), "inet", False)
    assert symbols(settings, "bind") == ["SO_REUSEADDR"]
    assert symbols(settings, "listen") == ["TCP_NODELAY"]
    assert symbols(settings, "accepted") == []


def test_options_that_are_off_are_not_set() -> None:
    it = listener("socket.reuse-addr = false\nsocket.nodelay = false\nsocket.keepalive = false")
    assert socket_options(it, "inet", False) == ()


def test_all_options_on_ipv4() -> None:
    settings = socket_options(listener(ALL), "inet", False)
    assert symbols(settings, "bind") == ["SO_REUSEADDR", "SO_REUSEPORT", "IP_FREEBIND"]
    assert symbols(settings, "listen") == [
        "TCP_NODELAY",
        "IP_TTL",
        "IP_TOS",
        "SO_PRIORITY",
        "SO_SNDBUF",
        "SO_RCVBUF",
        "SO_LINGER",
        "SO_KEEPALIVE",
        "TCP_KEEPIDLE",
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
        "TCP_USER_TIMEOUT",
        "TCP_DEFER_ACCEPT",
        "TCP_CONGESTION",
    ]
    assert symbols(settings, "accepted") == ["SO_PRIORITY"]
    packed = {each.call.symbol: each.packed for each in settings}
    assert packed["IP_TTL"] == number(77)
    assert packed["IP_TOS"] == number(72)
    assert packed["SO_SNDBUF"] == number(65536)
    assert packed["SO_RCVBUF"] == number(40000)
    assert packed["SO_LINGER"] == struct.pack("=ii", 1, 0)
    assert packed["TCP_KEEPIDLE"] == number(61)
    assert packed["TCP_USER_TIMEOUT"] == number(1500)
    assert packed["TCP_DEFER_ACCEPT"] == number(5)
    assert packed["TCP_CONGESTION"] == b"reno"
    assert {each.value for each in settings if each.call.symbol == "TCP_USER_TIMEOUT"} == {1.5}


@pytest.mark.parametrize(
    ("dual_stack", "expected"),
    [
        (False, ["IPV6_FREEBIND", "IPV6_UNICAST_HOPS", "IPV6_TCLASS"]),
        (
            True,
            [
                "IP_FREEBIND",
                "IPV6_FREEBIND",
                "IP_TTL",
                "IPV6_UNICAST_HOPS",
                "IP_TOS",
                "IPV6_TCLASS",
            ],
        ),
    ],
)
def test_ip_options_on_ipv6_sockets(dual_stack: bool, expected: list[str]) -> None:
    settings = socket_options(listener(ALL), "inet6", dual_stack)
    found = [each.call.symbol for each in settings if each.call.symbol.startswith("IP")]
    assert found == expected
    assert len([each for each in settings if each.call.symbol == "TCP_NODELAY"]) == 1


def test_unix_sockets_only_have_buffer_options() -> None:
    settings = socket_options(listener(ALL), "unix", False)
    assert symbols(settings, "listen") == ["SO_SNDBUF", "SO_RCVBUF"]
    assert len(settings) == 2


@pytest.mark.parametrize("value", ["3", "'250ms'", "false"])
def test_linger_with_a_time_is_not_set(value: str) -> None:
    settings = socket_options(listener(f"socket.linger = {value}"), "inet", False)
    assert "SO_LINGER" not in symbols(settings, "listen")


@pytest.fixture(params=["inet", "inet6"])
def made(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET if request.param == "inet" else socket.AF_INET6
    try:
        each = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        pytest.skip(f"no {request.param} here: {error}")
    with each:
        yield each


def test_kernel_accepts_every_option(made: socket.socket) -> None:
    inet6 = made.family == socket.AF_INET6
    if inet6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    it = listener(ALL)
    settings = socket_options(it, "inet6" if inet6 else "inet", inet6)
    for each in settings:
        made.setsockopt(each.call.level, each.call.name, each.packed)
    got = {each.call.symbol: read(made, each.call, len(each.packed)) for each in settings}
    for each in settings:
        symbol = each.call.symbol
        if symbol in ("SO_SNDBUF", "SO_RCVBUF"):
            assert number_of(got[symbol]) >= number_of(each.packed)
        elif symbol == "TCP_DEFER_ACCEPT":
            assert number_of(got[symbol]) >= 5  # rounded up to whole retransmissions
        else:
            assert got[symbol] == each.packed, symbol


def read(made: socket.socket, call: SocketOption, size: int) -> bytes:
    return made.getsockopt(call.level, call.name, size)


def number_of(packed: bytes) -> int:
    return int(struct.unpack("=i", packed)[0])
