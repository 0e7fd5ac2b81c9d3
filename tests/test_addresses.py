"""Addresses as text: IPv4-mapped ones become IPv4, and ports are written in the usual way.

Rules of this file: where possible, the result is compared with the kernel's for a real connection.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest

from fastlisten.addresses import (
    MAPPED_PREFIX,
    is_loopback,
    parse_address,
    peer_address,
    unmapped,
    unmapped_network,
    with_port,
)


def test_ipv4_client_of_a_dual_stack_socket() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])),
    ):
        accepted, name = server.accept()
        accepted.close()
        assert name[0] == "::ffff:127.0.0.1"
        assert peer_address(name) == "127.0.0.1" == unmapped(name[0])


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::1", 5, 0, 0), "::1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("fe80::1", 5, 0, 3), "fe80::1%3"),
        # 64:ff9b:: and this one are IPv6 addresses that contain an IPv4 one, and are not mapped.
        (("::192.0.2.1", 5, 0, 0), "::192.0.2.1"),
        (("::ffff:0:c000:201", 5, 0, 0), "::ffff:0:c000:201"),
    ],
)
def test_address_of_a_peer(name: tuple[object, ...], address: str) -> None:
    assert peer_address(name) == address


@pytest.mark.parametrize("number", [0, 1, 0x7F000001, 0xC0000201, 0xFFFFFFFF])
def test_every_way_to_write_a_mapped_address(number: int) -> None:
    packed = struct.pack("!I", number)
    plain = socket.inet_ntop(socket.AF_INET, packed)
    mapped = socket.inet_ntop(socket.AF_INET6, MAPPED_PREFIX + packed)
    assert unmapped(mapped) == plain
    for text in (mapped, mapped.upper(), f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"):
        assert parse_address(text) == ipaddress.IPv4Address(plain)


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.2.3", "1.2.3.4%lo", "1.2.3.4:5", "[::1]", "%lo"]
)
def test_invalid_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("text", ["::1%", "::1%lo", "0:0::1%2"])
def test_scope_is_left_out(text: str) -> None:
    assert parse_address(text) == ipaddress.ip_address("::1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::1%lo", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::", False),
        ("::ffff:192.0.2.1", False),
        ("localhost", False),
    ],
)
def test_loopback(text: str, answer: bool) -> None:
    assert is_loopback(text) is answer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
        # Wider than all of IPv4: it contains IPv6 addresses, too.
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_networks(text: str, plain: str) -> None:
    assert unmapped_network(ipaddress.ip_network(text)) == ipaddress.ip_network(plain)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "192.0.2.1:25"),
        ("::1", "[::1]:25"),
        ("fe80::1%eth0", "[fe80::1%eth0]:25"),
        ("mx.example.org", "mx.example.org:25"),
    ],
)
def test_address_with_port(host: str, text: str) -> None:
    assert with_port(host, 25) == text
