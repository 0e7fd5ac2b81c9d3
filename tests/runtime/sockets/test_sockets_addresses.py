"""What a bind becomes: families, IPV6_V6ONLY, ports chosen by the kernel, hosts without IPv6."""

from __future__ import annotations

import asyncio
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import without_ipv6
from support.marks import needs_ipv6
from support.program import program, run
from support.server import connect, read_some, served
from support.waiting import eventually

from fastlisten.config import loads
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import open_all


def table(name: str, bind: str, handler: str = "Echo") -> str:
    return (
        f"[server.listener.{name}]\n"
        f'protocol = "http"\nhandler = "support.serving_handlers:{handler}"\nbind = {bind}\n'
    )


def free_port() -> int:
    """Return a port that is free on all addresses of both families at the moment."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        port: int = probe.getsockname()[1]
        return port


def v6only(text: str) -> dict[str, bool]:
    """Return the kernel's IPV6_V6ONLY for each IPv6 bind, by its text."""
    sockets = open_all(loads(text).listeners)
    try:
        return {
            bound.bind.text: bool(bound.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
            for bound in sockets
            if bound.sock.family == socket.AF_INET6
        }
    finally:
        close_all(sockets)


# --- IPV6_V6ONLY ------------------------------------------------------------------------------


@needs_ipv6
def test_ipv6_wildcard_is_dual_stack_and_addresses_are_not() -> None:
    assert v6only(table("a", '["[::]:0", "[::1]:0"]')) == {"[::]:0": False, "[::1]:0": True}


def test_ipv6_wildcard_beside_ipv4_wildcard_of_the_same_port() -> None:
    port = free_port()
    six, four = f'"[::]:{port}"', f'"0.0.0.0:{port}"'
    alone = {f"[::]:{port}": True}
    assert v6only(table("a", f"[{six}, {four}]")) == alone
    assert v6only(table("a", f"[{four}, {six}]")) == alone
    assert v6only(table("a", six) + table("b", four)) == alone
    assert v6only(table("a", four) + table("b", six)) == alone


def test_wildcards_of_different_ports_are_independent() -> None:
    text = table("a", '["[::]:0", "0.0.0.0:0"]') + table("b", f'"0.0.0.0:{free_port()}"')
    assert v6only(text) == {"[::]:0": False}


@needs_ipv6
def test_both_wildcards_of_a_port_serve_one_family_each() -> None:
    port = free_port()

    async def check(address: str, mine: Any, other: Any) -> None:
        with await connect(address, port):
            await eventually(lambda: mine.open, "the connection")
            assert mine.open[0].info.peer == address
            assert not other.open
        await eventually(lambda: not mine.open, "its end")

    async def main() -> None:
        text = table("six", f'"[::]:{port}"') + table("four", f'"0.0.0.0:{port}"')
        async with served(text) as server:
            four, six = (listener.handler for listener in server.listeners)
            await check("127.0.0.1", four, six)
            await check("::1", six, four)

    asyncio.run(main())


@needs_ipv6
def test_ipv4_clients_of_the_ipv6_wildcard_have_ipv4_addresses() -> None:
    """As handlers see them; the transport reports what the kernel does (like asyncio's)."""

    async def main() -> None:
        async with served(table("a", '"[::]:0"')) as server:
            listener = server.listeners[0]
            handler: Any = listener.handler
            for address in ("127.0.0.1", "::1"):
                with await connect(address, listener.sockets[0].port) as client:
                    await eventually(lambda: handler.open, "the connection")
                    (protocol,) = handler.open
                    assert protocol.info.peer == address
                    assert protocol.info.port == client.getsockname()[1]
                    name = protocol.transport.get_extra_info("peername")[0]
                    assert name == ("::ffff:127.0.0.1" if "." in address else "::1")
                await eventually(lambda: not handler.open, "its end")

    asyncio.run(main())


# --- port 0 -----------------------------------------------------------------------------------


@needs_ipv6
def test_port_0_is_reported_as_the_chosen_port() -> None:
    async def main() -> None:
        text = table("a", '["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"]')
        async with served(text) as server:
            sockets = server.listeners[0].sockets
            ports = [bound.port for bound in sockets]
            assert [bound.address for bound in sockets] == [
                f"127.0.0.1:{ports[0]}",
                f"[::1]:{ports[1]}",
                f"[::]:{ports[2]}",
                f"0.0.0.0:{ports[3]}",
            ]
            assert 0 not in ports
            assert sockets[2].port != sockets[3].port
            assert ", ".join(bound.address for bound in sockets) in server.describe()[0]
            # The role that depends on the port knows the one that was chosen.
            assert server.listeners[0].handler.settings.port == ports[0]
            for address, bound in zip(
                ("127.0.0.1", "::1", "::1", "127.0.0.1"), sockets, strict=True
            ):
                with await connect(address, bound.port) as client:
                    client.send(b"x")
                    assert await read_some(client, 1) == b"x"

    asyncio.run(main())


# --- hosts without IPv6 -----------------------------------------------------------------------

needs_seccomp = pytest.mark.skipif(
    platform.machine() not in without_ipv6.SOCKET_CALL,
    reason=f"no filter of system calls is written for {platform.machine()}",
)
WRAPPER = [sys.executable, without_ipv6.__file__]


@needs_seccomp
def test_helper_disables_ipv6_only() -> None:
    code = (
        "import socket\n"
        "socket.socket().close()\n"
        "try: socket.socket(socket.AF_INET6)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run(
        [*WRAPPER, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "97\n"  # EAFNOSUPPORT


@needs_seccomp
def test_without_ipv6_the_wildcard_serves_ipv4(tmp_path: Path) -> None:
    text = table("a", '"[::]:0"') + table("b", '"0.0.0.0:0"')
    with program(tmp_path, text, listeners=2, wrapper=WRAPPER) as started:
        port = started.port("a")
        assert started.addresses["a"] == [f"0.0.0.0:{port}"]
        for name in "ab":
            with socket.create_connection(("127.0.0.1", started.port(name)), 20) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        assert started.stop() == 0
        warnings = [line for line in started.err.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        'listener "a" on [::]:0: this host has no IPv6; bound to 0.0.0.0 instead'
    )


@needs_seccomp
@pytest.mark.parametrize("together", [True, False])
def test_without_ipv6_the_ipv4_wildcard_is_bound_once(tmp_path: Path, together: bool) -> None:
    port = free_port()
    six, four = f'"[::]:{port}"', f'"0.0.0.0:{port}"'
    text = table("a", f"[{six}, {four}]") if together else table("a", six) + table("b", four)
    with program(tmp_path, text, listeners=1 if together else 2, wrapper=WRAPPER) as started:
        assert started.addresses["a" if together else "b"] == [f"0.0.0.0:{port}"]
        if not together:
            assert started.addresses["a"] == ["nothing"]
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert started.stop() == 0
        assert (
            f'listener "a" on [::]:{port}: this host has no IPv6; 0.0.0.0 is already bound\n'
            in started.err
        )


@needs_seccomp
def test_without_ipv6_an_ipv6_address_is_a_failure(tmp_path: Path) -> None:
    with program(tmp_path, table("a", '"[::1]:0"'), listeners=0, wrapper=WRAPPER) as started:
        assert started.ended() == 3
        assert started.err == (
            'error: listener "a" on [::1]:0: socket: Address family not supported by protocol\n'
        )


@needs_ipv6
def test_effective_options_are_those_of_the_sockets(tmp_path: Path) -> None:
    """`show --effective` agrees with what the kernel says about the served sockets."""
    file = tmp_path / "mail.toml"
    file.write_text(table("a", '"[::1]:0"') + "socket.send-buffer-size = 30000\nsocket.ttl = 9\n")
    done = run("show", "--effective", file)
    assert done.returncode == 0
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if "got" in line}
    sockets = open_all(loads(file.read_text()).listeners)
    try:
        sock = sockets[0].sock
        assert rows["socket.send-buffer-size"][-1] == str(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        )
        assert rows["socket.ttl"][-1] == str(
            sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        )
        assert rows["IPV6_V6ONLY"][-1] == "1"
    finally:
        close_all(sockets)
