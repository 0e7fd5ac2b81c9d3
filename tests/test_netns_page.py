"""The samples of the configuration's page, served: on its addresses and its ports.

A host and its client are two network namespaces joined by a cable. The host has the addresses of
the page's first sample.
"""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from netns import Namespace, needs_netns
from serving import external, program

pytestmark = needs_netns()

#: The page's first sample; it leaves the protocol out.
FIRST = """
[server.listener."smtp"]
bind = ["10.0.0.21:25", "10.0.0.22:25", "a:3f::2"]
protocol = "smtp"
"""

#: Those listeners of its full sample that need no TLS.
PLAIN = """
[server.listener."smtp"]
bind = "[::]:25"
protocol = "smtp"

[server.listener."submission"]
bind = "[::]:587"
protocol = "smtp"
"""


class Net(NamedTuple):
    """Two joined hosts."""

    host: Namespace
    client: Namespace


@pytest.fixture
def net() -> Iterator[Net]:
    with Namespace.made() as host, Namespace.made() as client:
        host.connect(client, "eth0", "eth0")
        host.ip(
            "addr add 10.0.0.21/24 dev eth0",
            "addr add 10.0.0.22/24 dev eth0",
            "addr add a:3f::2/64 dev eth0 nodad",
        )
        client.ip("addr add 10.0.0.99/24 dev eth0", "addr add a:3f::9/64 dev eth0 nodad")
        yield Net(host, client)


def deliver(host: str, port: int, subject: str) -> None:
    """Send a message, over whatever family the address is of."""
    with smtplib.SMTP(host, port, "client.example.com", timeout=20) as session:
        refused = session.sendmail(
            "sender@example.com",
            "alice@example.org",
            f"Subject: {subject}\r\n\r\n.a line with a dot\r\n".encode(),
        )
    assert refused == {}


def test_the_first_sample_is_served_to_another_host(net: Net, tmp_path: Path) -> None:
    with net.host, program(tmp_path, FIRST) as started:
        assert started.addresses == {
            "smtp": ["10.0.0.21:25", "10.0.0.22:25", "[a:3f::2]:25"],
        }
        with net.client:
            for address in ("10.0.0.21", "10.0.0.22", "a:3f::2"):
                deliver(address, 25, address)
            # It listens on these addresses and on no other.
        with pytest.raises(ConnectionRefusedError):
            deliver("127.0.0.1", 25, "nowhere")
        assert started.stop() == 0
        messages = started.messages()
    assert sorted(message.partition(b"Subject: ")[2] for message in messages) == [
        b"10.0.0.21\r\n\r\n.a line with a dot\r\n",
        b"10.0.0.22\r\n\r\n.a line with a dot\r\n",
        b"a:3f::2\r\n\r\n.a line with a dot\r\n",
    ]
    peers = [
        message.partition(b"client.example.com (")[2].partition(b")")[0] for message in messages
    ]
    assert sorted(peers) == [b"[10.0.0.99]", b"[10.0.0.99]", b"[IPv6:a:3f::9]"]


def test_one_address_less_and_nothing_is_served(net: Net, tmp_path: Path) -> None:
    net.host.ip("addr del a:3f::2/64 dev eth0")
    with net.host, program(tmp_path, FIRST, listeners=0) as started:
        assert started.ended() == 3
        assert started.out == ""
        assert started.err == (
            'error: listener "smtp" on a:3f::2: bind: Cannot assign requested address\n'
        )


def test_ports_25_and_587_are_served_to_both_families(net: Net, tmp_path: Path) -> None:
    with net.host, program(tmp_path, PLAIN, listeners=2) as started:
        assert started.addresses == {"smtp": ["[::]:25"], "submission": ["[::]:587"]}
        with net.client:
            for port in (25, 587):
                for address in ("10.0.0.21", "10.0.0.22", "a:3f::2"):
                    deliver(address, port, f"{address} {port}")
        for address in ("127.0.0.1", "::1"):
            deliver(address, 25, address)
        assert started.stop() == 0
        assert len(started.messages()) == 8
        # Every delivery is logged with its listener and its client.
        assert started.err.count("fastlisten.smtp: smtp: ") == 5
        assert started.err.count("fastlisten.smtp: submission: ") == 3
        assert started.err.count("at [10.0.0.99]") == 4
        assert started.err.count("at [a:3f::9]") == 2


@external("swaks")
@pytest.mark.parametrize("port", [25, 587])
def test_swaks_delivers(net: Net, tmp_path: Path, port: int) -> None:
    with net.host, program(tmp_path, PLAIN, listeners=2) as started:
        with net.client:
            done = subprocess.run(
                [
                    *("swaks", "--server", "10.0.0.21", "--port", str(port)),
                    *("--helo", "client.example.com", "--from", "sender@example.com"),
                    *("--to", "alice@example.org", "--body", "from swaks"),
                ],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "<-  220 mx.example.org ESMTP" in done.stdout
        assert started.stop() == 0
        (message,) = started.messages()
    assert b"\r\nfrom swaks\r\n" in message


def test_a_second_server_is_told_who_holds_the_ports(net: Net, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with net.host, program(tmp_path, PLAIN, listeners=2) as first:
        with program(tmp_path / "second", PLAIN, listeners=0) as second:
            assert second.ended() == 3
            holder = f"(held by PID {first.pid}, "
            lines = second.err.splitlines()
            assert [line.partition(holder)[0] for line in lines] == [
                'error: listener "smtp" on [::]:25: bind: Address already in use ',
                'error: listener "submission" on [::]:587: bind: Address already in use ',
            ]
        # It does not harm the first.
        deliver("127.0.0.1", 25, "still served")
        assert first.stop() == 0


def test_a_port_can_be_served_again_at_once(net: Net, tmp_path: Path) -> None:
    """Connections that the server closed linger in TIME_WAIT; reuse-addr is on by default."""
    for _ in range(3):
        with net.host, program(tmp_path, PLAIN, listeners=2) as started:
            deliver("127.0.0.1", 25, "again")
            assert started.stop() == 0
    assert len(started.messages()) == 3
