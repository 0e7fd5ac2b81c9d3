"""A channel between the supervisor and one worker: messages with descriptors, nothing ever blocks.

    packet = b"J" + JSON                    up to 64 KiB
           | b"M" + size in decimal         the JSON is in a sealed memfd, the first descriptor

The JSON is ``[kind, body]``, a string and an object; never pickle, because a worker has fewer
privileges than the supervisor and may have been taken over.

Rules of this file: it knows neither kinds nor bodies. What arrives is checked before it is used,
and whatever arrives, no descriptor is left open that the receiver does not get. Packets have
boundaries, so the channel can still be used after a bad message; what to do with such a peer is for
the caller to decide.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fastlisten.errors import FastlistenError

__all__ = [
    "MAX_DESCRIPTORS",
    "MAX_INLINE",
    "MAX_PAYLOAD",
    "BadMessageError",
    "Channel",
    "ChannelClosedError",
    "ChannelError",
    "ChannelFullError",
    "LostMessageError",
    "Message",
    "NoRoomError",
    "sealed",
]

#: The most descriptors of a message: the kernel passes 253 at a time (SCM_MAX_FD), one of which may
#: be the memfd of the payload.
MAX_DESCRIPTORS: Final = 252

#: The longest JSON in a packet, in octets. A packet has to fit into the socket's send buffer (208
#: KiB by default) in one piece; with this size a few do.
MAX_INLINE: Final = 64 * 1024

#: The longest JSON at all, in octets: 10,000 listeners with all their counters are about 10 MB. A
#: worker that has been taken over cannot make the supervisor read more.
MAX_PAYLOAD: Final = 32 * 1024 * 1024

#: With these the memfd cannot change while it is read, nor later (memfd_create(2), fcntl(2)).
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

#: No space in the channel, no memory for the packet, or more descriptors on their way than the user
#: may have open (unix(7)): all of that passes when the peer reads.
_FULL = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))

_GONE = frozenset((errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN))


class ChannelError(FastlistenError):
    """Something is wrong with the channel or its peer."""


class ChannelFullError(ChannelError):
    """The message was not sent: the peer does not read."""


class NoRoomError(ChannelFullError):
    """The message was not sent: this process has no descriptor or memory for a large one."""


class ChannelClosedError(ChannelError):
    """The peer has closed its end, or has ended."""


class LostMessageError(ChannelError):
    """The next message is lost: this process has no descriptor left for those that came with it.

    The channel can still be used, and the peer has done nothing wrong.
    """


class BadMessageError(ChannelError):
    """The peer has sent something that is not a message; its descriptors have been closed."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as received.

    Attributes:
        kind: what it is about.
        body: a JSON object; nothing in it has been checked.
        fds: descriptors, close-on-exec. They belong to the receiver.
    """

    kind: str
    body: dict[str, Any]
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors, if the receiver does not take them."""
        _close_all(self.fds)


class Channel:
    """One end of a channel.

    Args:
        sock: a connected SEQPACKET socket; the channel owns it.
        descriptors: how many descriptors a message from the peer may bring, up to
            `MAX_DESCRIPTORS`.
    """

    def __init__(self, sock: socket.socket, descriptors: int = MAX_DESCRIPTORS) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._descriptors = descriptors
        # Exactly: the padding of CMSG_SPACE has room for one descriptor more.
        self._ancillary = socket.CMSG_LEN((descriptors + 1) * array.array("i").itemsize)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return the supervisor's end, which takes no descriptors, and a worker's, close-on-exec.

        Raises:
            OSError: no descriptors left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours, descriptors=0), cls(theirs)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this end. Calling it again does nothing."""
        self._sock.close()

    def send(self, kind: str, body: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message, at once or not at all.

        Args:
            kind: what it is about.
            body: can be encoded as JSON; keys are strings.
            fds: descriptors to pass on, at most `MAX_DESCRIPTORS`; they stay open here.

        Raises:
            ChannelFullError: the peer does not read.
            NoRoomError: no descriptor or memory is left for a large message.
            ChannelClosedError: the peer is gone.
            ValueError: too many descriptors, or more than `MAX_PAYLOAD` octets, or NaN in the body.
            OSError: a descriptor is not open.
        """
        if len(fds) > MAX_DESCRIPTORS:
            raise ValueError(f"a message has at most {MAX_DESCRIPTORS} descriptors, not {len(fds)}")
        text = json.dumps([kind, body], allow_nan=False, separators=(",", ":")).encode()
        if len(text) <= MAX_INLINE:
            self._send(b"J" + text, fds)
            return
        if len(text) > MAX_PAYLOAD:
            raise ValueError(f"a message has at most {MAX_PAYLOAD} octets, not {len(text)}")
        try:
            memfd = sealed(text)
        except OSError as error:
            raise NoRoomError(f"no room for a large message: {error.strerror}") from None
        try:
            self._send(b"M%d" % len(text), [memfd, *fds])
        finally:
            os.close(memfd)

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        ancillary = []
        if fds:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)))
        try:
            self._sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in _FULL:
                raise ChannelFullError(f"the peer does not read: {error.strerror}") from None
            if error.errno in _GONE:
                raise ChannelClosedError("the peer has closed the channel") from None
            raise

    def receive(self) -> Message | None:
        """Return the next message, None if there is none now.

        Raises:
            ChannelClosedError: there will be no more messages.
            BadMessageError: the next packet is not a message; the channel can still be used.
            LostMessageError: no descriptor is left; the channel can still be used.
            OSError: the channel has been closed here.
        """
        try:
            packet, fds, complete = self._receive()
        except BlockingIOError:
            return None
        try:
            # An empty packet cannot be told from the end.
            if not packet:
                raise ChannelClosedError("the peer has closed the channel")
            if not complete:
                # While those that have arrived are open: the kernel stops at the first that fails.
                if not self._can_open():
                    raise LostMessageError("a message is lost: no descriptor is left for its own")
                raise BadMessageError(
                    "a packet arrived incomplete: too long, or with too many descriptors"
                )
            text, rest = _payload(packet, fds)
            if len(rest) > self._descriptors:
                raise BadMessageError(f"{len(rest)} descriptors, {self._descriptors} are allowed")
            kind, body = _decode(text)
        except BaseException:
            _close_all(fds)
            raise
        _close_all(fds[: len(fds) - len(rest)])
        return Message(kind, body, tuple(rest))

    def _can_open(self) -> bool:
        """Tell whether this process may have one more descriptor."""
        try:
            os.close(os.dup(self._sock.fileno()))
        except OSError:
            return False
        return True

    def _receive(self) -> tuple[bytes, list[int], bool]:
        """Return the next packet, its descriptors, and whether both are complete."""
        flags = int(socket.MSG_CMSG_CLOEXEC)
        try:
            received = self._sock.recvmsg(1 + MAX_INLINE, self._ancillary, flags)
        except ConnectionResetError:
            # The peer has ended without reading everything. The kernel says so once, and before
            # the packets that the peer had sent.
            received = self._sock.recvmsg(1 + MAX_INLINE, self._ancillary, flags)
        packet, ancillary, told, _ = received
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return packet, fds.tolist(), not told & (socket.MSG_TRUNC | socket.MSG_CTRUNC)


def sealed(content: bytes) -> int:
    """Return a memfd with this content that nobody can change."""
    memfd = os.memfd_create("fastlisten-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(memfd, view) :]
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _payload(packet: bytes, fds: list[int]) -> tuple[bytes, list[int]]:
    """Return the JSON of a packet, and the descriptors that are not part of its form."""
    form, rest = packet[:1], packet[1:]
    if form == b"J":
        return rest, fds
    if form != b"M" or not fds or not rest.isdigit() or len(rest) > len(str(MAX_PAYLOAD)):
        raise BadMessageError("a packet in an unknown form")
    return _read_sealed(fds[0], int(rest)), fds[1:]


def _read_sealed(memfd: int, size: int) -> bytes:
    """Return what is in a memfd, which need not be one."""
    if size > MAX_PAYLOAD:
        raise BadMessageError(f"a message of {size} octets, {MAX_PAYLOAD} are allowed")
    try:
        # Only files in memory have seals; nothing else is read, because that could block.
        seals = fcntl.fcntl(memfd, fcntl.F_GET_SEALS)
        if seals & _SEALS != _SEALS:
            raise BadMessageError("a payload that its sender could still change")
        if os.fstat(memfd).st_size != size:
            raise BadMessageError("a payload of another size than its packet says")
        content = os.pread(memfd, size, 0)
    except OSError as error:
        raise BadMessageError(f"a payload that cannot be read: {error.strerror}") from None
    if len(content) != size:
        raise BadMessageError("a payload that cannot be read: too short")
    return content


def _decode(text: bytes) -> tuple[str, dict[str, Any]]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadMessageError("a message that is not JSON") from None
    if not isinstance(value, list) or len(value) != 2:
        raise BadMessageError("a message that is not [kind, body]")
    kind, body = value
    if not isinstance(kind, str) or not isinstance(body, dict):
        raise BadMessageError("a message that is not [kind, body]")
    return kind, body


def _refuse_constant(name: str) -> NoReturn:
    # Python's parser would accept NaN and Infinity, which RFC 8259 has not.
    raise ValueError(name)


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        # It has been closed even if close(2) reports an error.
        with contextlib.suppress(OSError):
            os.close(fd)
