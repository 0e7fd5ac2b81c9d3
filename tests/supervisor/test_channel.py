"""Messages between the supervisor and a worker: content, descriptors, a full channel, its end.

Rules of this file: both ends are used as the package uses them; what a hostile peer sends is in
test_channel_hostile.py.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.figures import show
from support.forked import Child
from support.kernel import is_open

from fastlisten.runtime.supervisor.channel import (
    MAX_DESCRIPTORS,
    MAX_INLINE,
    MAX_PAYLOAD,
    Channel,
    ChannelClosedError,
    ChannelFullError,
    Message,
    NoRoomError,
)

pytestmark = pytest.mark.usefixtures("descriptors_back")

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair(descriptors_back: None) -> Iterator[Pair]:
    """A channel: the supervisor's end, the worker's end."""
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def received(channel: Channel) -> Message:
    message = channel.receive()
    assert message is not None
    return message


def fill(channel: Channel) -> int:
    """Send until the channel is full; return how many messages went in."""
    for count in range(100_000):
        try:
            channel.send("it", {"number": count})
        except ChannelFullError:
            return count
    raise AssertionError("the channel has no bound")


def test_messages_arrive_in_order_both_ways(pair: Pair) -> None:
    for sender, receiver in (pair, pair[::-1]):
        assert receiver.receive() is None
        sender.send("first", {"text": "\u20ac", "list": [1, 2.5, None, True]})
        sender.send("second", {})
        assert received(receiver) == Message(
            "first", {"text": "\u20ac", "list": [1, 2.5, None, True]}
        )
        assert received(receiver) == Message("second", {})
        assert receiver.receive() is None


@pytest.mark.parametrize("size", [MAX_INLINE - 100, MAX_INLINE, 3_000_000])
def test_long_message_arrives_whole(pair: Pair, size: int) -> None:
    for sender, receiver in (pair, pair[::-1]):
        sender.send("long", {"text": "x" * size})
        assert received(receiver) == Message("long", {"text": "x" * size})


def test_long_messages_take_little_space_in_the_channel(pair: Pair) -> None:
    for number in range(20):  # 20 MB, a hundred times what the socket's buffer holds
        pair[0].send("long", {"number": number, "text": "x" * 1_000_000})
    assert [received(pair[1]).body["number"] for _ in range(20)] == list(range(20))


def test_too_long_message_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="at most 33554432 octets"):
        pair[0].send("long", {"text": "x" * MAX_PAYLOAD})
    assert pair[1].receive() is None


@pytest.mark.parametrize("size", [10, MAX_INLINE])
def test_descriptors_arrive_in_order(pair: Pair, size: int) -> None:
    pipes = [os.pipe() for _ in range(MAX_DESCRIPTORS // 2)]
    mine = [fd for both in pipes for fd in both]
    assert len(mine) == MAX_DESCRIPTORS
    pair[0].send("sockets", {"text": "x" * size}, mine)
    message = received(pair[1])
    assert [os.fstat(fd).st_ino for fd in message.fds] == [os.fstat(fd).st_ino for fd in mine]
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in message.fds)
    for fd in mine:
        os.close(fd)
    os.write(message.fds[1], b"through")
    assert os.read(message.fds[0], 10) == b"through"
    message.close()
    assert not any(is_open(fd) for fd in message.fds)


def test_too_many_descriptors_are_not_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="at most 252 descriptors, not 253"):
        pair[0].send("sockets", {}, [0] * (MAX_DESCRIPTORS + 1))
    assert pair[1].receive() is None


def test_descriptor_that_is_not_open_is_an_error(pair: Pair) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair[0].send("sockets", {}, [1 << 20])
    assert pair[1].receive() is None


def test_nan_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pair[0].send("number", {"value": float("nan")})


def test_full_channel_refuses_and_takes_more_once_read(pair: Pair) -> None:
    count = fill(pair[0])
    assert count > 100
    assert [received(pair[1]).body["number"] for _ in range(count)] == list(range(count))
    assert pair[1].receive() is None
    assert fill(pair[0]) == count
    show(f"{count} short messages fit")


def test_large_message_without_free_descriptors_is_not_sent(pair: Pair) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    large = {"text": "x" * MAX_INLINE}
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(NoRoomError, match="large message: Too many open files"):
            pair[0].send("large", large)
        pair[0].send("small", {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    pair[0].send("large", large)
    assert [received(pair[1]).kind for _ in range(2)] == ["small", "large"]


def test_descriptors_on_their_way_are_closed_with_the_channel(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            pair[0].send("socket", {}, [theirs.fileno()])
        pair[1].close()
        assert ours.recv(1) == b""


def test_last_messages_are_read_before_the_end(pair: Pair) -> None:
    pair[0].send("last", {})
    pair[0].close()
    assert received(pair[1]) == Message("last", {})
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            pair[1].receive()


def test_last_messages_of_a_peer_that_has_not_read_everything(pair: Pair) -> None:
    pair[1].send("unread", {})
    pair[0].send("last", {})
    pair[0].close()
    assert received(pair[1]) == Message("last", {})
    with pytest.raises(ChannelClosedError):
        pair[1].receive()


@pytest.mark.parametrize("unread", [False, True])
def test_peer_is_gone(pair: Pair, unread: bool) -> None:
    if unread:
        pair[0].send("unread", {})
    pair[1].close()
    for _ in range(3):
        with pytest.raises(ChannelClosedError):
            pair[0].send("it", {})
    with pytest.raises(ChannelClosedError):
        pair[0].receive()


def test_closed_here(pair: Pair) -> None:
    pair[0].close()
    pair[0].close()
    assert pair[0].fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair[0].receive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair[0].send("it", {})


def test_killed_process_ends_its_channel(pair: Pair) -> None:
    def body(control: socket.socket) -> None:
        pair[1].send("hello", {"pid": os.getpid()})
        control.send(b'"sent"')
        control.recv(1)

    child = Child(body, [pair[1].fileno()])
    pair[1].close()
    assert child.hear() == "sent"
    assert received(pair[0]).body == {"pid": child.pid}
    assert pair[0].receive() is None
    os.kill(child.pid, signal.SIGKILL)
    child.kill()
    with pytest.raises(ChannelClosedError):
        pair[0].receive()


def test_other_programs_do_not_inherit_it(pair: Pair) -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import os; print(*os.listdir('/proc/self/fd'))"],
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    inherited = {int(fd) for fd in listed.stdout.split()}
    assert not inherited & {pair[0].fileno(), pair[1].fileno()}


def test_importing_it_needs_no_loop_and_no_native_module(tmp_path: Path) -> None:
    """The supervisor is a small process."""
    text = (
        "import sys, fastlisten.runtime.supervisor.channel\n"
        "print([one for one in sys.modules if one == 'asyncio' or one.startswith('fastlisten._')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
