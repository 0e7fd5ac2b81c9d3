"""A blocking SMTP client that takes one step at a time.

Rules of this file: it only parses replies; which commands are sent, and whether the replies are
right, is up to the test.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from support.certificates import authority
from support.raw_client import RESET
from support.waiting import PATIENCE

__all__ = ["MESSAGE", "SmtpClient", "connected"]

#: A message with a line that begins with a dot.
MESSAGE = b"Subject: x\r\n\r\n.dot\r\n"


class SmtpClient:
    """A client on a connected socket.

    Attributes:
        sock: the socket; after `starttls` a TLS socket.
        greeting: the lines of the greeting without their code, if `connected` has read it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.greeting: list[str] = []
        self._lines = sock.makefile("rb")

    # -- sending

    def send(self, *lines: str | bytes) -> None:
        """Send lines at once, without their line ends."""
        octets = [line.encode() if isinstance(line, str) else line for line in lines]
        self.sock.sendall(b"".join(line + b"\r\n" for line in octets))

    def type(self, text: bytes) -> None:
        """Send each octet in a segment of its own."""
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in text:
            self.sock.sendall(bytes((octet,)))

    # -- receiving

    def reply(self) -> bytes:
        """Return the next reply as received; empty at the end."""
        lines: list[bytes] = []  # one long string would be copied for each line
        while not lines or lines[-1][3:4] == b"-":
            lines.append(self._lines.readline())
        return b"".join(lines)

    def answer(self) -> tuple[int, list[str]]:
        """Return the code of the next reply and its lines; code 0 at the end."""
        lines = self.reply().decode().split("\r\n")
        assert lines.pop() == "", lines
        return (int(lines[-1][:3]) if lines else 0), [line[4:] for line in lines]

    def rest(self) -> bytes:
        """Read to the end; return ``reset`` if that is a reset."""
        try:
            return self._lines.read()
        except ConnectionResetError:
            return b"reset"

    # -- both

    def say(self, line: bytes) -> bytes:
        """Send a line, which may have its line end; return the reply."""
        self.sock.sendall(line if line.endswith(b"\r\n") else line + b"\r\n")
        return self.reply()

    def ask(self, line: str | bytes) -> tuple[int, list[str]]:
        """Send a line; return the code of the reply and its lines."""
        self.send(line)
        return self.answer()

    def codes(self, *lines: str | bytes) -> list[int]:
        """Send lines one by one; return the codes of the replies."""
        return [self.ask(line)[0] for line in lines]

    def data(self, message: bytes = MESSAGE) -> tuple[int, list[str]]:
        """Send a message by DATA; return the last reply."""
        code, lines = self.ask("DATA")
        if code != 354:
            return code, lines
        return self.ask(message.replace(b"\r\n.", b"\r\n..") + b".")

    def starttls(self, context: ssl.SSLContext | None = None) -> None:
        """Perform the TLS handshake after the server's go-ahead; trust the tests' authority."""
        self._lines.close()
        context = context or authority().client_context()
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._lines = self.sock.makefile("rb")

    # -- ends

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.sock.close()


@contextlib.contextmanager
def connected(
    port: int, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
) -> Iterator[SmtpClient]:
    """Connect and read the greeting; with a context, over implicit TLS."""
    sock = socket.create_connection((host, port), PATIENCE)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="localhost")
    with contextlib.closing(SmtpClient(sock)) as client:
        client.greeting = client.answer()[1]
        yield client
