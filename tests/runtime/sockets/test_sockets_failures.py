"""Sockets that cannot be opened: all are reported at once, with what is needed to act on it. The
program exits with 3, and has listened on nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.marks import needs_ipv6
from support.program import run

from fastlisten.config import loads
from fastlisten.errors import SocketFailure, StartError
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import open_all

# No test machine has them: RFC 5737 and RFC 3849 reserve them for documentation.
NOWHERE4 = "192.0.2.77"
NOWHERE6 = "2001:db8::77"


def table(name: str, bind: str, *lines: str) -> str:
    head = f'[server.listener."{name}"]\nprotocol = "smtp"\n'
    head += 'handler = "support.serving_handlers:Echo"\n'
    return head + f"bind = {bind}\n" + "".join(f"{line}\n" for line in lines)


def failures(text: str) -> tuple[SocketFailure, ...]:
    """Return the failures of opening a configuration's sockets, of which there must be some."""
    with pytest.raises(StartError) as caught:
        close_all(open_all(loads(text).listeners))
    return caught.value.failures


def held_port(family: int = socket.AF_INET) -> socket.socket:
    """Return a listening socket on loopback."""
    holder = socket.socket(family)
    holder.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    holder.listen()
    return holder


@needs_ipv6
def test_every_failure_is_reported(descriptors_back: None) -> None:
    """Of binds and of options, of several listeners, each with what an administrator needs."""
    with held_port() as holder, held_port(socket.AF_INET6) as holder6:
        busy, busy6 = holder.getsockname()[1], holder6.getsockname()[1]
        text = (
            table("a", f'["127.0.0.1:{busy}", "[::1]:{busy6}", "127.0.0.1:0"]')
            + table("b", f'["{NOWHERE4}:2525", "[{NOWHERE6}]:2525"]')
            + table("c", '"127.0.0.1:0"', 'socket.congestion = "nosuchthing"')
            + table("d", '"[fe80::1%nosuchif]:2525"')
        )
        found = failures(text)
    # In use: the test's own process holds both ports.
    name = Path("/proc/self/comm").read_text().strip()
    holding = f"Address already in use (held by PID {os.getpid()}, {name})"
    assert [(one.listener, one.address, one.operation, one.value) for one in found] == [
        ("a", f"127.0.0.1:{busy}", "bind", ""),
        ("a", f"[::1]:{busy6}", "bind", ""),
        ("b", f"{NOWHERE4}:2525", "bind", ""),
        ("b", f"[{NOWHERE6}]:2525", "bind", ""),
        ("c", "127.0.0.1:0", "socket.congestion (TCP_CONGESTION)", "nosuchthing"),
        ("d", "[fe80::1%nosuchif]:2525", "interface nosuchif", ""),
    ]
    assert [one.errno for one in found] == [
        errno.EADDRINUSE,
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EADDRNOTAVAIL,
        errno.ENOENT,
        errno.ENODEV,
    ]
    assert [one.text for one in found] == [
        holding,
        holding,
        "Cannot assign requested address",
        "Cannot assign requested address",
        "No such file or directory",
        "No such device",
    ]
    assert str(found[4]) == (
        'listener "c" on 127.0.0.1:0: socket.congestion (TCP_CONGESTION) = nosuchthing: '
        "No such file or directory"
    )


def test_holder_of_the_same_address_is_named() -> None:
    """A server on the same port of another address is neither in the way nor named."""
    code = (
        "import socket, sys\n"
        "with socket.create_server(('127.0.0.2', {})):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with held_port() as holder:
        port = holder.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-c", code.format(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == b"ready\n"
                found = failures(table("a", f'"127.0.0.1:{port}"'))
            finally:
                other.communicate()
    assert f"PID {os.getpid()}, " in found[0].text
    assert f"PID {other.pid}, " not in found[0].text


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]"])
def test_holder_of_an_address_blocks_the_wildcard(wildcard: str) -> None:
    with held_port() as holder:
        port = holder.getsockname()[1]
        found = failures(table("a", f'"{wildcard}:{port}"'))
    assert found[0].errno == errno.EADDRINUSE
    assert f"held by PID {os.getpid()}, " in found[0].text


def test_several_options_fail_on_one_socket() -> None:
    lines = ('socket.congestion = "nosuchthing"', "socket.priority = 2000000000")
    code = (
        "from fastlisten.config import loads\n"
        "from fastlisten.runtime.sockets.opening import open_all\n"
        "from fastlisten.errors import StartError\n"
        "import os; os.setgroups([]) if os.geteuid() == 0 else None\n"
        f"config = loads({table('a', chr(34) + '127.0.0.1:0' + chr(34), *lines)!r})\n"
        "os.setresuid(65534, 65534, 65534) if os.geteuid() == 0 else None\n"
        "try: open_all(config.listeners)\n"
        "except StartError as error: print(error)\n"
    )
    # A user without CAP_NET_ADMIN cannot raise the priority.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    where = 'listener "a" on 127.0.0.1:0'
    assert done.stdout.splitlines() == [
        f"{where}: socket.priority (SO_PRIORITY) = 2000000000: Operation not permitted",
        f"{where}: socket.congestion (TCP_CONGESTION) = nosuchthing: No such file or directory",
    ]


def test_permission_error_on_low_port_says_what_is_needed() -> None:
    limit = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if limit <= 25:
        pytest.skip("this machine lets everybody bind low ports")
    code = (
        "from fastlisten.config import loads\n"
        "from fastlisten.runtime.sockets.opening import open_all\n"
        "from fastlisten.errors import StartError\n"
        "import os\n"
        f"config = loads({table('a', chr(34) + '127.0.0.1:25' + chr(34))!r})\n"
        "os.setresuid(65534, 65534, 65534) if os.geteuid() == 0 else None\n"
        "try: open_all(config.listeners)\n"
        "except StartError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == (
        'listener "a" on 127.0.0.1:25: bind: Permission denied '
        "(ports below 1024 need CAP_NET_BIND_SERVICE)\n"
    )


def test_program_reports_all_failures_and_exits_with_3(tmp_path: Path) -> None:
    with held_port() as holder:
        port = holder.getsockname()[1]
        text = (
            table("a", f'"127.0.0.1:{port}"')
            + table("b", f'"{NOWHERE4}:2525"')
            + table("c", '"127.0.0.1:0"', 'socket.congestion = "nosuchthing"')
        )
        (tmp_path / "mail.toml").write_text(text)
        done = run("serve", tmp_path / "mail.toml", XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 3
    assert done.stdout == ""
    name = Path("/proc/self/comm").read_text().strip()
    # In development mode asyncio may also complain about a slow start.
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == [
        f'error: listener "a" on 127.0.0.1:{port}: bind: Address already in use '
        f"(held by PID {os.getpid()}, {name})",
        f'error: listener "b" on {NOWHERE4}:2525: bind: Cannot assign requested address',
        'error: listener "c" on 127.0.0.1:0: socket.congestion (TCP_CONGESTION) = nosuchthing: '
        "No such file or directory",
    ]
