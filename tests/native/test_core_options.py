"""Socket options in batches: applied even if one fails, read back from the kernel, inherited.

Rules of this file: getsockopt shows what was set, strace shows what was not called.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from support.listener import Echo, bound_socket, crowd_of, listening
from support.loops import LOOPS, LoopFactory, run
from support.raw_client import RawClient
from support.strace import traced
from support.traced_program import GREETING
from support.waiting import PATIENCE, eventually

from fastlisten._core import OptionBatch

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: No protocol has an option of this number.
UNKNOWN = 9999
TTL = (socket.IPPROTO_IP, socket.IP_TTL)
HOPS = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
PRIORITY = (socket.SOL_SOCKET, socket.SO_PRIORITY)
KEEPALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
SNDBUF = (socket.SOL_SOCKET, socket.SO_SNDBUF)
RCVBUF = (socket.SOL_SOCKET, socket.SO_RCVBUF)
LINGER = (socket.SOL_SOCKET, socket.SO_LINGER)
CONGESTION = (socket.IPPROTO_TCP, socket.TCP_CONGESTION)


def number(value: int) -> bytes:
    """Return an int in the form that the kernel takes."""
    return value.to_bytes(4, sys.byteorder, signed=True)


def option_batch(*entries: tuple[tuple[int, int], int | bytes]) -> OptionBatch:
    return OptionBatch(
        [(*option, number(value) if isinstance(value, int) else value) for option, value in entries]
    )


# --- one batch, one socket --------------------------------------------------------------------


def test_applied_values_are_those_of_getsockopt() -> None:
    options = option_batch(
        (NODELAY, 1),
        (TTL, 17),
        (KEEPALIVE, 1),
        (LINGER, struct.pack("ii", 1, 7)),
        (CONGESTION, b"reno"),
        (SNDBUF, 20_000),
    )
    with socket.socket() as sock:
        assert options.apply(sock.fileno()) == ()
        assert sock.getsockopt(*NODELAY) == 1
        assert sock.getsockopt(*TTL) == 17
        assert sock.getsockopt(*KEEPALIVE) == 1
        assert sock.getsockopt(*LINGER, 8) == struct.pack("ii", 1, 7)
        assert sock.getsockopt(*CONGESTION, 16).rstrip(b"\0") == b"reno"
        # The kernel doubles it: half of it is for bookkeeping.
        assert sock.getsockopt(*SNDBUF) == 40_000
        found = options.read(sock.fileno())
    assert found[:4] == (number(1), number(17), number(1), struct.pack("ii", 1, 7))
    assert found[4] is not None
    assert found[4].rstrip(b"\0") == b"reno"
    assert found[5] == number(40_000)


def test_rejected_option_does_not_stop_the_others() -> None:
    options = option_batch(
        (TTL, 0),
        (NODELAY, 1),
        ((socket.SOL_SOCKET, UNKNOWN), 1),
        (TTL, 33),
        (HOPS, 1),
        (KEEPALIVE, b"\1"),
        (CONGESTION, b"no-such-thing"),
        (KEEPALIVE, 1),
    )
    with socket.socket() as sock:
        assert options.apply(sock.fileno()) == (
            (0, errno.EINVAL),
            (2, errno.ENOPROTOOPT),
            (4, errno.ENOPROTOOPT),
            (5, errno.EINVAL),
            (6, errno.ENOENT),
        )
        assert sock.getsockopt(*NODELAY) == 1
        assert sock.getsockopt(*TTL) == 33
        assert sock.getsockopt(*KEEPALIVE) == 1
        found = options.read(sock.fileno())
    assert [value is None for value in found] == [False] * 2 + [True, False, True] + [False] * 3


def test_dual_stack_socket_gets_options_of_both_families() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        assert option_batch((TTL, 21), (HOPS, 22)).apply(sock.fileno()) == ()
        assert (sock.getsockopt(*TTL), sock.getsockopt(*HOPS)) == (21, 22)


def test_descriptor_that_is_not_a_socket() -> None:
    options = option_batch((NODELAY, 1), (TTL, 3))
    read_end, write_end = os.pipe()
    assert options.apply(read_end) == ((0, errno.ENOTSOCK), (1, errno.ENOTSOCK))
    assert options.read(read_end) == (None, None)
    os.close(read_end)
    os.close(write_end)
    assert options.apply(read_end) == ((0, errno.EBADF), (1, errno.EBADF))


def test_entries_are_kept_as_given() -> None:
    entries = [(*NODELAY, number(1)), (*CONGESTION, b"x" * 32), (*TTL, b"")]
    options = OptionBatch(entries)
    assert options.entries == tuple(entries)
    assert len(options) == 3
    empty = OptionBatch([])
    assert (len(empty), empty.entries) == (0, ())
    with socket.socket() as sock:
        assert (empty.apply(sock.fileno()), empty.read(sock.fileno())) == ((), ())


def test_invalid_entries_are_rejected() -> None:
    with pytest.raises(ValueError, match="33 bytes, at most 32 allowed"):
        OptionBatch([(*CONGESTION, b"x" * 33)])
    with pytest.raises(OverflowError):
        OptionBatch([(1 << 40, 1, b"")])
    wrong: Any = [(1, 2)]
    with pytest.raises(ValueError, match="unpack"):
        OptionBatch(wrong)


# --- accepted sockets -------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_accepted_sockets_inherit_options_set_before_listen(
    loop_factory: LoopFactory, family: int
) -> None:
    async def main() -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        options = option_batch((NODELAY, 1), (KEEPALIVE, 1), (SNDBUF, 30_000), (RCVBUF, 40_000))
        more = option_batch((TTL, 19)) if family == socket.AF_INET else option_batch((HOPS, 19))
        assert options.apply(sock.fileno()) == more.apply(sock.fileno()) == ()
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        sock.listen()
        sock.setblocking(False)
        async with listening(sock=sock) as listener, crowd_of(listener, 1):
            await eventually(lambda: listener.acceptor.connections)
            accepted = listener.protocols[0].transport.get_extra_info("socket").fileno()
            assert options.read(accepted) == options.read(sock.fileno())
            assert more.read(accepted) == (number(19),)

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_other_options_are_set_on_every_accepted_socket(
    loop_factory: LoopFactory, lazy: bool
) -> None:
    async def main() -> None:
        options = option_batch((PRIORITY, 5), ((socket.SOL_SOCKET, UNKNOWN), 1), (TTL, 44))
        async with listening(options=options, lazy=lazy) as listener:
            assert listener.acceptor.options is options
            async with crowd_of(listener, 3) as clients:
                for client in clients:
                    await client.send(b"ping")
                    assert await client.read() == b"ping"
                for protocol in listener.protocols:
                    accepted = protocol.transport.get_extra_info("socket")
                    assert accepted.getsockopt(*PRIORITY) == 5
                    assert accepted.getsockopt(*TTL) == 44
                assert listener.sock.getsockopt(*PRIORITY) == 0
                # One of the three is unknown: it is counted, but no reason to turn anyone away.
                assert listener.acceptor.statistics()["option_errors"] == 3

    run(loop_factory, main)


def test_tcp_options_on_a_unix_socket(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        options = option_batch((NODELAY, 1), (PRIORITY, 3))
        async with listening(Echo, bound_socket(socket.AF_UNIX, path), options=options) as listener:
            client = await RawClient.connect(path, first=b"ping")
            assert await client.read() == b"ping"
            accepted = listener.protocols[0].transport.get_extra_info("socket")
            assert accepted.getsockopt(*PRIORITY) == 3
            assert listener.acceptor.statistics()["option_errors"] == 1
            client.close()

    run(loop_factory, main)


@pytest.mark.external("strace")
@pytest.mark.parametrize("accepted", [[], [[*PRIORITY, 5]]], ids=["inherited", "priority"])
@pytest.mark.parametrize("loop", LOOPS)
def test_inherited_options_cost_no_system_call_per_connection(
    loop: str, accepted: list[list[int]], tmp_path: Path
) -> None:
    size = 50
    watched = ["-e", "trace=accept4,setsockopt,getsockopt,ioctl,fcntl"]
    with traced(tmp_path / "calls", watched, loop=loop, listeners=1, accepted=accepted) as program:
        for _ in range(size):
            with socket.create_connection(program.addresses[0], PATIENCE) as client:
                assert client.recv(100) == GREETING
                client.sendall(b"ping")
                assert client.recv(100) == b"ping"
    assert program.statistics[0]["accepted"] == size
    served = [
        index
        for index, call in enumerate(program.calls)
        if "accept4(" in call and "EAGAIN" not in call
    ]
    assert len(served) == size
    # From the first connection to the last, whatever the loop does when it starts and ends.
    during = program.calls[served[0] : served[-1]]
    others = [call for call in during if "accept4(" not in call]
    assert len(others) == (size - 1 if accepted else 0), others[:5]
    assert all("SO_PRIORITY, [5]" in call for call in others)
