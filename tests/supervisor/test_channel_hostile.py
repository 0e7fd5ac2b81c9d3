"""What a hostile worker can send to the supervisor: it is refused, and nothing stays open.

Rules of this file: the peer is a bare socket. After each bad packet the channel must still take a
good message, and the number of open descriptors must be what it was.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import resource
import socket
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kernel import open_descriptors

from fastlisten.runtime.supervisor.channel import (
    MAX_DESCRIPTORS,
    MAX_INLINE,
    MAX_PAYLOAD,
    BadMessageError,
    Channel,
    ChannelClosedError,
    LostMessageError,
    Message,
)

pytestmark = pytest.mark.usefixtures("descriptors_back")

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Hostile:
    """A peer that sends what it likes.

    Args:
        descriptors: how many the channel takes with a message.

    Attributes:
        sock: its end.
        channel: the end under attack.
    """

    def __init__(self, descriptors: int = 0) -> None:
        self.sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(other, descriptors)

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.channel.close()

    def send(self, packet: bytes, *fds: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([packet], rights)

    def refused(self, packet: bytes, *fds: int) -> str:
        """Send a packet that must be refused; return what was wrong with it."""
        before = open_descriptors()
        self.send(packet, *fds)
        with pytest.raises(BadMessageError) as caught:
            self.channel.receive()
        assert open_descriptors() == before
        self.send(b'J["good",{}]')
        assert self.channel.receive() == Message("good", {})
        return str(caught.value)


@contextlib.contextmanager
def memfd(content: bytes, seals: int = SEALS, size: int | None = None) -> Iterator[int]:
    """Make a memfd with some seals."""
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        if size is not None:
            os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'["kind"]',
        b'["kind",{},{}]',
        b'["kind",[]]',
        b'["kind",null]',
        b"[1,{}]",
        b'[null,{"a":1}]',
        b'["kind",{}',
        b'["kind",{}]x',
        b'["kind",{"a":NaN}]',
        b'["kind",{"a":-Infinity}]',
        b'["kind",{"a":"\xff"}]',
        b'["kind",{"a":' + b"9" * 10_000 + b"}]",
        b"[" * 60_000,
        b'["kind",' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b"\x80\x04N.",
    ],
    ids=range(19),
)
def test_not_a_message(text: bytes) -> None:
    with Hostile() as hostile:
        hostile.refused(b"J" + text)
        with memfd(text) as fd:
            hostile.refused(b"M%d" % len(text), fd)


@pytest.mark.parametrize(
    "packet",
    [b"x", b"\0", b'["kind",{}]', b"M", b"M-1", b"M 10", b"M1e3", b"M\xb2", b"M" + b"9" * 99],
)
def test_unknown_form(packet: bytes) -> None:
    with Hostile() as hostile, memfd(b'["kind",{}]') as fd:
        assert hostile.refused(packet) == "a packet in an unknown form"
        assert hostile.refused(packet, fd) == "a packet in an unknown form"


def test_payload_without_its_memfd() -> None:
    with Hostile() as hostile:
        assert hostile.refused(b"M10") == "a packet in an unknown form"


@pytest.mark.parametrize(
    "missing", [fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE]
)
def test_memfd_that_lacks_a_seal(missing: int) -> None:
    text = b'["kind",{}]'
    with Hostile() as hostile, memfd(text, SEALS & ~missing) as fd:
        why = hostile.refused(b"M%d" % len(text), fd)
        assert why == "a payload that its sender could still change"


def test_memfd_with_all_seals_is_taken() -> None:
    """The control of the tests around it."""
    text = b'["kind",{"a":1}]'
    with Hostile() as hostile, memfd(text) as fd:
        hostile.send(b"M%d" % len(text), fd)
        assert hostile.channel.receive() == Message("kind", {"a": 1})


@pytest.mark.parametrize("claimed", [0, 10, 12, 4096])
def test_memfd_of_another_size(claimed: int) -> None:
    with Hostile() as hostile, memfd(b'["kind",{}]') as fd:
        why = hostile.refused(b"M%d" % claimed, fd)
        assert why == "a payload of another size than its packet says"


def test_huge_memfd_is_not_read() -> None:
    with Hostile() as hostile, memfd(b"", size=1 << 40) as fd:
        assert "33554432 are allowed" in hostile.refused(b"M%d" % (MAX_PAYLOAD + 1), fd)
        assert "another size" in hostile.refused(b"M%d" % MAX_PAYLOAD, fd)


def test_payload_that_is_no_memfd() -> None:
    read, write = os.pipe()
    with Hostile() as hostile, tempfile.TemporaryFile() as file, memfd(b"x") as sealed:
        file.write(b'["kind",{}]')
        file.flush()
        path_only = os.open(f"/proc/self/fd/{sealed}", os.O_PATH)
        write_only = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY)
        others = (read, write, file.fileno(), path_only, write_only, hostile.sock.fileno())
        for fd in others:
            hostile.refused(b"M11", fd)
        for fd in (read, write, path_only, write_only):
            os.close(fd)


def test_sealed_memfd_that_cannot_be_read() -> None:
    with Hostile() as hostile, memfd(b'["kind",{}]', seals=0) as fd:
        write_only = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS & ~fcntl.F_SEAL_SEAL)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
        assert "cannot be read" in hostile.refused(b"M11", write_only)
        os.close(write_only)


@pytest.mark.parametrize("count", [1, 2, 3, 100, 253])
def test_unexpected_descriptors(count: int) -> None:
    with Hostile() as hostile:
        hostile.refused(b'J["kind",{}]', *[0] * count)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_unexpected_descriptors_with_a_good_memfd(count: int) -> None:
    text = b'["kind",{}]'
    with Hostile() as hostile, memfd(text) as fd:
        hostile.refused(b"M%d" % len(text), fd, *[0] * count)


def test_more_descriptors_than_the_receiver_allows() -> None:
    with Hostile(descriptors=2) as hostile:
        assert hostile.refused(b'J["kind",{}]', 0, 1, 2) == "3 descriptors, 2 are allowed"
        hostile.refused(b'J["kind",{}]', 0, 1, 2, 0, 1)
        hostile.send(b'J["kind",{}]', 0, 1)
        message = hostile.channel.receive()
        assert message is not None
        assert len(message.fds) == 2
        message.close()


def test_descriptors_with_a_bad_message_are_closed() -> None:
    with Hostile(descriptors=MAX_DESCRIPTORS) as hostile:
        hostile.refused(b"J[]", *[0] * MAX_DESCRIPTORS)


def test_receiver_without_free_descriptors_loses_the_message() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Hostile(descriptors=10) as hostile:
        hostile.send(b'J["kind",{}]', *[0] * 10)
        free = [os.dup(0) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, hard))
        try:
            os.close(free.pop())
            before = open_descriptors()
            with pytest.raises(LostMessageError):
                hostile.channel.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
        for fd in free:
            os.close(fd)
        hostile.send(b'J["good",{}]')
        assert hostile.channel.receive() == Message("good", {})


def test_too_long_packet() -> None:
    text = json.dumps(["kind", {"a": "x" * MAX_INLINE}]).encode()
    with Hostile() as hostile:
        assert "too long" in hostile.refused(b"J" + text)


def test_empty_packet_counts_as_the_end() -> None:
    with Hostile(descriptors=5) as hostile:
        before = open_descriptors()
        hostile.send(b"", 0, 1)
        with pytest.raises(ChannelClosedError):
            hostile.channel.receive()
        assert open_descriptors() == before


@given(st.binary(max_size=300), st.integers(0, 4))
def test_whatever_arrives_nothing_stays_open(packet: bytes, count: int) -> None:
    with Hostile(descriptors=2) as hostile:
        before = open_descriptors()
        hostile.send(packet, *[0] * count)
        with contextlib.suppress(BadMessageError, ChannelClosedError):
            message = hostile.channel.receive()
            assert message is not None
            message.close()
        assert open_descriptors() == before
