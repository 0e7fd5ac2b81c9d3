"""A client that types: each octet in a segment of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from support.real_server import HOST, Mail
from support.serving import PATIENCE

__all__ = ["Typist", "typing"]


class Typist:
    """Types, and reads replies."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.unread = b""

    def type(self, text: bytes) -> None:
        """Send each octet in a segment of its own."""
        for octet in text:
            self.sock.sendall(bytes((octet,)))

    def reply(self) -> list[bytes]:
        """Return the lines of the next reply."""
        lines: list[bytes] = []
        while True:
            while b"\r\n" not in self.unread:
                data = self.sock.recv(65536)
                assert data, (lines, self.unread)
                self.unread += data
            line, _, self.unread = self.unread.partition(b"\r\n")
            lines.append(line)
            if line[3:4] == b" ":
                return lines

    def code(self, text: bytes) -> int:
        """Type a line; return the code of the reply."""
        self.type(text + b"\r\n")
        return int(self.reply()[-1][:3])

    def ended(self) -> bool:
        """Tell whether nothing more comes; wait for the end."""
        return self.unread == b"" and self.sock.recv(1) == b""


@contextlib.contextmanager
def typing(mail: Mail, listener: str) -> Iterator[Typist]:
    with socket.create_connection((HOST, mail.port(listener)), PATIENCE) as sock:
        yield Typist(sock)
